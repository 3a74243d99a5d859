"""The embedding and soft assignment of every row by the fitted model, in one pass or in shards, and their files."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medstrata.decisions import model_checksum
from medstrata.images.manifest import Manifest, Sharding
from medstrata.images.pixel_file import write_header
from medstrata.images.shards import Work, run_shards
from medstrata.images.workers import Serial
from medstrata.learning.adjustment import InBatches
from medstrata.learning.batches import other_scale
from medstrata.methods.files import load
from medstrata.methods.method import BLOCK, ClusteringMethod
from medstrata.pipeline.fitting import average_rows
from medstrata.run import Progress, atomic, digest

Floats = NDArray[np.float32]
Material = NDArray[Any] | InBatches
Read = Callable[[Path], Material]  # picklable and the same object, or equal, whenever it is asked for

ROWS_IN_ONE_PASS = 200_000  # more are done in shards, so that an interrupted pass goes on
VALUES_PER_SHARD = 1 << 26  # pixels: 16,384 images of 64 x 64
MOST_ROWS_PER_SHARD = 1 << 14  # as many as the model assigns at once, so that shards change no digit


def embed(out: Path, method: ClusteringMethod, read: Read, sharding: Sharding, progress: Progress) -> Iterator[Floats]:
    """Yield blocks (n, Z + K), embeddings beside soft assignments, of all rows ``read(out)`` of a run, in their order.

    Few rows are done in one pass. Many rows, and rows for other machines, are done in shards by workers that load the
    model each. A model uses all processors of its machine by itself, so that here one shard comes after the other.

    Raises
    ------
    FitError : the rows do not fit the model
    RunFolderError : no room for the shards, or the workers cannot do their work
    """
    material = read(out)
    work = _Rows(out, method.device, read, sharding.token, _rows_per_shard(material))
    manifest = work.manifest(len(material), sharding)
    if sentence := other_scale(material.images if isinstance(material, InBatches) else material, method.preprocessing_):
        warnings.warn(sentence, stacklevel=2)
    if sharding.executor.elsewhere or len(material) > ROWS_IN_ONE_PASS or manifest.is_known():
        for part in work.run(len(material), sharding, progress):
            yield np.load(io.BytesIO(part))
        return
    for start in range(0, len(material), work.size):
        yield _block(method, material, start, work.size)
        progress("embedding", min(start + work.size, len(material)), len(material))


def write_embeddings(out: Path, blocks: Iterator[Floats], image_of: NDArray[np.int64], n_clusters: int) -> None:
    """Write embeddings.npy (M, Z) and soft_assignments.npy (M, K), the means over the rows of each image.

    ``blocks`` as of ``embed``; ``image_of`` (R,), ascending: the image of each row. A large set is never in memory.
    """
    with ExitStack() as stack:
        files = [
            stack.enter_context(open(stack.enter_context(atomic(out / name)), "wb"))
            for name in ("embeddings.npy", "soft_assignments.npy")
        ]
        for means in _by_image(blocks, image_of):
            for file, part in zip(files, (means[:, :-n_clusters], means[:, -n_clusters:]), strict=True):
                if not file.tell():
                    write_header(file, (int(image_of[-1]) + 1, part.shape[1]), part.dtype)
                file.write(np.ascontiguousarray(part).data)


def _by_image(blocks: Iterator[Floats], image_of: NDArray[np.int64]) -> Iterator[Floats]:
    """Yield the means of one image after the other, some at once; the rows of an image may lie in two blocks."""
    waiting, done = np.zeros((0, 0), np.float32), 0
    for block in blocks:
        rows = np.concatenate([waiting.reshape(-1, block.shape[1]), block])
        images = image_of[done : done + len(rows)]
        ends = done + len(rows) == len(image_of)
        whole = len(rows) if ends else int(np.searchsorted(images, image_of[done + len(rows)]))
        if whole:
            yield average_rows(images[:whole], rows[:whole])[1]
        waiting, done = rows[whole:], done + whole


def embed_share(out: Path, device: str, read: Read, sharding: Sharding, progress: Progress) -> None:
    """Do one job's share of the rows; ``embed`` with the same folder and token then finds them done."""
    material = read(out)
    _Rows(out, device, read, sharding.token, _rows_per_shard(material)).run(len(material), sharding, progress)


def _rows_per_shard(material: Material) -> int:
    """Return a multiple of the rows of one pass through the network, so that shards change no digit."""
    shape = (material.images if isinstance(material, InBatches) else material).shape[1:]
    return max(BLOCK, min(MOST_ROWS_PER_SHARD, VALUES_PER_SHARD // math.prod(shape) // BLOCK * BLOCK))


@dataclass(frozen=True)
class _Rows:
    """What every worker is told: the run, and which rows are one shard."""

    out: Path
    device: str
    read: Read
    token: str
    size: int

    def manifest(self, rows: int, sharding: Sharding) -> Manifest:
        """Return the shards of so many rows; an item is one block of ``size`` rows."""
        return Manifest(sharding.folder, digest(self.token, self.size), -(-rows // self.size), 1)

    def run(self, rows: int, sharding: Sharding, progress: Progress) -> Iterator[bytes]:
        """Do what is not done yet and yield the blocks."""
        manifest = self.manifest(rows, sharding)
        manifest.begin()
        work = Work("assign", range(0, rows, self.size), self)
        own = sharding if sharding.executor.elsewhere else replace(sharding, executor=Serial())
        return run_shards(manifest, work, own, lambda what, done, _: progress(what, min(done * self.size, rows), rows))

    def __call__(self, starts: Sequence[int]) -> list[bytes]:
        """Do blocks of rows: (n, Z + K) float32 as .npy."""
        return [self._block(start) for start in starts]

    def _block(self, start: int) -> bytes:
        method, material = _loaded(self.out, self.device, self.read, f"{self.token} {model_checksum(self.out)}")
        content = io.BytesIO()
        np.save(content, _block(method, material, start, self.size))
        return content.getvalue()


def _block(method: ClusteringMethod, material: Material, start: int, size: int) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about the values: what holds of all rows is said once
        return np.concatenate(method.embed_and_assign(material[start : start + size]), axis=1)


@lru_cache(maxsize=1)
def _loaded(out: Path, device: str, read: Read, inputs: str) -> tuple[ClusteringMethod, Material]:
    """Load the model and open the rows, once a worker; ``inputs`` tells these rows and this fit from the next."""
    return load(out, device), read(out)
