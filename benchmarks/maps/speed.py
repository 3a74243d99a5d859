"""How long maps take: ours, a loop over channels, and Score-CAM of pytorch-grad-cam and of torch-cam on one network.

python -m benchmarks.maps.speed [--rounds 5]        (first: make peers-maps)

CPU milliseconds per image on one thread, median over alternated rounds; ratio to the loop; Pearson's r and largest
difference, relative to the largest value, of the map from the loop's. The two packages weigh by a softmax over channels
and fill with zero, so their maps are not the same; pytorch-grad-cam's Score-CAM has no 3-D.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import sys
import time
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medstrata.evidence.maps.activation import cluster_activation_map
from medstrata.evidence.maps.clam import Clam, scaled_masks, weighted_map
from medstrata.evidence.maps.correlation import pearson
from medstrata.evidence.maps.feature_gradients import FeatureGradients
from medstrata.evidence.maps.integrated_gradients import IntegratedGradients
from medstrata.evidence.maps.rule import measure_cohort
from medstrata.methods.dcec import DCEC

PEERS = Path(__file__).resolve().parents[1] / ".peers-maps"
IMAGES = 8
SHAPES = {"2-D, 64 x 64": (1, 64, 64), "2-D, 128 x 128": (1, 128, 128), "3-D, 64 x 64 x 64": (1, 64, 64, 64)}

Maker = Callable[[torch.Tensor], torch.Tensor]


def fitted(shape: tuple[int, ...]) -> tuple[DCEC, torch.Tensor]:
    """A DCEC after one epoch on blobs in noise, and images as its network sees them: weights do not matter to speed."""
    rng = np.random.default_rng(0)
    images = rng.normal(100, 10, (24, *shape))
    for number, image in enumerate(images):
        corner = 4 + (number % 4) * (shape[-1] // 5)
        image[..., corner : corner + shape[-1] // 8, corner : corner + shape[-1] // 8] += 100
    quick = replace(DCEC().training, warmup_epochs=1, warmup_steps=0, epochs=1, batch_size=8)
    model = DCEC(4, random_state=0, training=quick).fit(images.astype(np.float32))
    return model, model.tensor(images[:IMAGES].astype(np.float32))


def loop(model: DCEC) -> Maker:
    """CLAM as one would write it: one masked image at a time."""

    @torch.inference_mode()
    def make(x: torch.Tensor) -> torch.Tensor:
        maps = []
        for image in x.split(1):
            features = model.feature_maps(image)
            cluster = int(model.soft_assignment(image).argmax())
            weights = []
            for channel in range(features.shape[1]):
                mask, usable = scaled_masks(features[:, channel : channel + 1], image.shape[2:])
                masked = image * mask + model.background * (1 - mask)
                weights.append(model.soft_assignment(masked)[0, cluster] * usable[0, 0])
            maps.append(weighted_map(features, torch.stack(weights)[None], image.shape[2:]))
        return torch.cat(maps)

    return make


def ours(model: DCEC, rule: Any, x: torch.Tensor) -> Maker:
    """A rule of the package on images that are already scaled, as all others here."""
    seen = types.SimpleNamespace(
        tensor=lambda block: torch.from_numpy(block),
        background=model.background,
        feature_maps=model.feature_maps,
        soft_assignment=model.soft_assignment,
        differentiable_assignment=model.differentiable_assignment,
    )
    cohort: Any = measure_cohort(seen, x.numpy()) if rule.needs_cohort else None
    return lambda block: torch.from_numpy(cluster_activation_map(seen, block.numpy(), rule, cohort=cohort).maps)


class Assigner(nn.Module):
    """The model as a module whose first part gives the feature maps, for packages that hook into modules."""

    def __init__(self, model: DCEC) -> None:
        super().__init__()
        self.network, self._model = model.network_, model
        self.features = Features(model)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._model.differentiable_assignment(self.features(x), of_features=True)


class Features(nn.Module):
    def __init__(self, model: DCEC) -> None:
        super().__init__()
        self._model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._model._features(x)


def peers(model: DCEC) -> dict[str, Maker]:
    """Score-CAM of the packages in ``benchmarks/.peers-maps``; none where it is not there."""
    if not PEERS.exists():
        return {}
    sys.path.append(str(PEERS))
    stub = types.ModuleType("torchvision.transforms")  # imported for pictures only, which are not made here
    vars(stub).update(Compose=None, Normalize=None, ToTensor=None)
    functional = types.ModuleType("torchvision.transforms.functional")
    vars(functional).update(resize=None)
    found = {"torchvision": types.ModuleType("torchvision"), "torchvision.transforms": stub}
    sys.modules.update(found | {"torchvision.transforms.functional": functional})
    grad_cam: Any = importlib.import_module("pytorch_grad_cam")
    torch_cam: Any = importlib.import_module("torchcam.methods")
    assigner = Assigner(model).eval()

    def by_grad_cam(x: torch.Tensor) -> torch.Tensor:
        maker = grad_cam.ScoreCAM(assigner, [assigner.features])
        with contextlib.redirect_stderr(io.StringIO()):
            return torch.from_numpy(maker(x, None))

    def by_torch_cam(x: torch.Tensor) -> torch.Tensor:
        maps = []
        for image in x.split(1):
            with torch_cam.ScoreCAM(assigner, assigner.features, batch_size=32) as maker, torch.no_grad():
                small = maker(int(assigner(image).argmax()))[0]
            mode = {4: "bilinear", 5: "trilinear"}[x.ndim]
            maps.append(nn.functional.interpolate(small[:, None], x.shape[2:], mode=mode)[:, 0])
        return torch.cat(maps)

    return {"pytorch-grad-cam 1.5.7, Score-CAM": by_grad_cam, "torch-cam 0.5.0, Score-CAM": by_torch_cam}


def compare(shape: tuple[int, ...], rounds: int) -> None:
    model, x = fitted(shape)
    makers: dict[str, Maker] = {"loop over channels": loop(model)}
    rules = {"Clam()": Clam(), "Clam(groups=8)": Clam(groups=8)}
    rules |= {"IntegratedGradients(), default": IntegratedGradients(), "FeatureGradients()": FeatureGradients()}  # type: ignore[dict-item]
    makers |= {name: ours(model, rule, x) for name, rule in rules.items()}
    makers |= {name: make for name, make in peers(model).items() if len(shape) == 3 or "grad-cam" not in name}
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    maps = {}
    for _ in range(rounds):
        for name, make in makers.items():
            started = time.process_time()
            maps[name] = make(x)
            seconds[name].append(time.process_time() - started)
    channels = model.feature_maps(x[:1]).shape[1]
    print(f"{channels} channels of {tuple(model.feature_maps(x[:1]).shape[2:])}\n")
    print("| | ms an image | faster than the loop | r | largest difference |\n|---|---|---|---|---|")
    first = next(iter(makers))
    for name in makers:
        ms = 1e3 * float(np.median(seconds[name])) / len(x)
        ratio = float(np.median(np.array(seconds[first]) / np.array(seconds[name])))
        r = float(pearson(maps[first], maps[name]).nanmean())
        apart = float((maps[first] - maps[name]).abs().max() / maps[first].abs().max())
        print(f"| {name} | {ms:.1f} | {ratio:.1f} | {r:.3f} | {apart:.0e} |", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.maps.speed")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name, shape in SHAPES.items():
        print(f"\n{name}: ", end="")
        compare(shape, given.rounds)


if __name__ == "__main__":
    main()
