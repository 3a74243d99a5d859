"""How much of a training step the augmentation takes: DeepMCAT and the contrastive autoencoder at their defaults.

python -m benchmarks.speed.steps [--rounds 5]

Batches of 256 images of 64 x 64, in the package's own environment (``make setup``). The share is measured within each
step: CPU seconds inside ``augment`` over those of the whole step.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from benchmarks.speed.images import scaled_images
from benchmarks.speed.timing import machine, shown, table
from medstrata.learning.augment import Augmentation, augment
from medstrata.learning.batches import measure
from medstrata.learning.checkpoints import Tensors
from medstrata.learning.fitting import Batch, Fit
from medstrata.methods import contrastive, deepmcat
from medstrata.methods.contrastive import ContrastiveAutoencoder
from medstrata.methods.deepmcat import DeepMCAT

TARGET = 0.10
CLUSTERS = 8
Loss = Callable[[Batch], Tensors]


class Stopwatch:
    """``augment``, with the CPU seconds spent in it added up."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, x: torch.Tensor, how: Augmentation, generator: torch.Generator) -> torch.Tensor:
        started = time.process_time()
        try:
            return augment(x, how, generator)
        finally:
            self.seconds += time.process_time() - started


def losses(images: torch.Tensor) -> dict[str, tuple[Any, Loss]]:
    """The models, ready to train on ``images``, and the losses of their steps."""
    torch.manual_seed(0)
    deep, autoencoder = DeepMCAT(CLUSTERS), ContrastiveAutoencoder(CLUSTERS)
    for model in (deep, autoencoder):
        model._prepare(images.shape[1:], measure(images.numpy(), model.training.preprocessing))
        model.network_.train()
    sizes = torch.tensor(deep.prototypes) * CLUSTERS
    size = deep.architecture.embedding_size
    fit = Fit(deep.network_, images.numpy(), deep.tensor, deep.training, 0, [])
    prototypes = torch.nn.functional.normalize(torch.randn(int(sizes.sum()), size))
    fit.kept = {"sizes": sizes, "prototypes": prototypes}
    labels = torch.stack([torch.randint(int(count), (len(images),)) for count in sizes], dim=1)
    fit.of_images = {"seen": torch.zeros(len(images), size), "labels": labels}
    return {
        "DeepMCAT, warm-up": (deep, deep._warm_up_loss),
        "DeepMCAT, clustering": (deep, lambda batch: deep._loss(batch, fit)),
        "contrastive autoencoder, warm-up": (autoencoder, autoencoder._warm_up_loss),
    }


def report(images: torch.Tensor, rounds: int) -> str:
    """Take ``rounds`` steps of each after one warm-up, in turn."""
    watch = Stopwatch()
    vars(deepmcat)["augment"] = vars(contrastive)["augment"] = watch
    steps = losses(images)
    optimizers = {
        name: torch.optim.AdamW(model.network_.parameters(), model.training.learning_rate, fused=True)
        for name, (model, _) in steps.items()
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    chance = torch.Generator().manual_seed(0)
    for number in range(rounds + 1):
        for name, (_, loss) in steps.items():
            watch.seconds, started = 0.0, time.process_time()
            optimizers[name].zero_grad(set_to_none=True)
            loss(Batch(images, torch.arange(len(images)), chance))["loss"].backward()
            optimizers[name].step()
            if number:
                taken[name].append((watch.seconds, time.process_time() - started))
    rows = []
    for name, seconds in taken.items():
        shares = [inside / whole for inside, whole in seconds]
        verdict = "reached" if median(shares) <= TARGET else "missed"
        spread = f"{median(shares):.1%} [{min(shares):.1%} to {max(shares):.1%}]"
        rate = shown(len(images) / median(whole for _, whole in seconds))
        rows.append((name, rate, spread, f"{TARGET:.0%}: {verdict}"))
    return table(("step", "images per CPU s", "augmentation's share", "target"), rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.steps")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(machine() + "\n")
    print(report(scaled_images(256), given.rounds))


if __name__ == "__main__":
    main()
