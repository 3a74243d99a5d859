"""Maps of some images at once, by this process or by the workers of a cluster."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medstrata.errors import RunFolderError
from medstrata.evidence.maps.activation import cluster_activation_map
from medstrata.evidence.maps.cohort_file import COHORT, read_cohort
from medstrata.evidence.maps.deletion import deletion
from medstrata.evidence.maps.folder import FACTS, Explained
from medstrata.evidence.maps.integrated_gradients import IntegratedGradients
from medstrata.evidence.maps.rule import Cohort, Explainable, Question
from medstrata.images.manifest import Manifest, Sharding
from medstrata.images.shards import Work, run_shards
from medstrata.methods.files import load
from medstrata.run import Progress

RULE = IntegratedGradients()
IMAGES_AT_ONCE = 16

Block = tuple[dict[str, list[float]], NDArray[np.float32]]
"""Of some images: what is known of each map (``FACTS``), and the signed maps (n, \\*grid)."""


def blocks_of(chosen: Sequence[Explained]) -> list[Sequence[Explained]]:
    """Cut the images to explain into those that are explained at once."""
    return [chosen[start : start + IMAGES_AT_ONCE] for start in range(0, len(chosen), IMAGES_AT_ONCE)]


def explain_block(model: Explainable, pixels: NDArray[Any], block: Sequence[Explained], cohort: Cohort) -> Block:
    """Make the maps of some images, in no common scale, and test each by deletion."""
    some = pixels[[one.row for one in block]]
    found = cluster_activation_map(model, some, RULE, [one.cluster for one in block], cohort=cohort)
    x = model.tensor(some)
    cluster, against = (torch.from_numpy(of).to(x.device) for of in (found.cluster, found.against))
    tested = deletion(model, x, torch.from_numpy(found.maps).to(x.device), Question(cluster, against, cohort))
    facts = {name: found.facts[name] if name in found.facts else tested[name].cpu().numpy() for name in FACTS}
    return {name: values.tolist() for name, values in facts.items()}, found.maps


def explained_elsewhere(
    out: Path, chosen: Sequence[Explained], sharding: Sharding, done: int, progress: Progress
) -> Iterator[Block]:
    """Have the maps of a run made by workers that load its model and cohort each; a shard is one block.

    All are made, and those of the images after the first ``done`` are yielded.
    """
    blocks = blocks_of(chosen)
    manifest = Manifest(sharding.folder, sharding.token, len(blocks), 1)
    manifest.begin()
    work = Work("blocks of maps", blocks, _Worker(out, sharding.token))
    found = run_shards(manifest, work, sharding, progress)
    for facts, maps in islice(found, -(-done // IMAGES_AT_ONCE), None):
        yield facts, np.load(io.BytesIO(maps))


@dataclass(frozen=True)
class _Worker:
    """What every worker is told: the run, and the ``token`` of its maps."""

    out: Path
    token: str

    def __call__(self, blocks: Sequence[Sequence[Explained]]) -> list[tuple[dict[str, list[float]], bytes]]:
        """Explain blocks of images; the maps as .npy."""
        return [self._one(block) for block in blocks]

    def _one(self, block: Sequence[Explained]) -> tuple[dict[str, list[float]], bytes]:
        model, pixels, cohort = _loaded(self.out, self.token)
        facts, maps = explain_block(model, pixels, block, cohort)
        content = io.BytesIO()
        np.save(content, maps)
        return facts, content.getvalue()


@lru_cache(maxsize=1)
def _loaded(out: Path, token: str) -> tuple[Explainable, NDArray[Any], Cohort]:
    """Load the model, the pixels and the cohort, once a worker; ``token`` tells one run in ``out`` from the next."""
    model = load(out)
    cohort = read_cohort(out / "maps" / COHORT, torch.device(model.device_))
    if cohort is None:
        raise RunFolderError("The cohort of the maps is not where a worker looks for it. Run the same command again.")
    return model, np.load(out / "pixels.npy", mmap_mode="r"), cohort
