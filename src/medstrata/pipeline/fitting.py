"""The stage fit: the plan's method on the decoded images, and baselines that no training made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from medstrata.errors import FitError, RunFolderError
from medstrata.images.plan import Plan
from medstrata.learning.adjustment import InBatches
from medstrata.learning.comm import ALONE, Comm
from medstrata.learning.reading import read_clusters
from medstrata.methods.method import ClusteringMethod
from medstrata.methods.principal import PrincipalComponents
from medstrata.methods.settings import make_method
from medstrata.pipeline.adjusting import in_batches, judge_adjustment, prepare_batches
from medstrata.pipeline.fitted_images import copy_drawn, drawn, fitted_images, image_numbers
from medstrata.pipeline.inputs import forget_checkpoints
from medstrata.report.wording import count as count_words
from medstrata.report.wording import things
from medstrata.run import Progress, RunFolder, atomic, processors, write_table

Floats = NDArray[np.float32]
READ_AT_ONCE = 1 << 14  # embeddings whose clusters are read at once


def method_of(plan: Plan, device: str) -> ClusteringMethod:
    """Construct the plan's method with the plan's settings."""
    settings = dict(plan.settings)
    own = {"n_clusters": plan.n_clusters, "random_state": plan.seed, "device": device}
    defaults = make_method(plan.method, {}).get_params(deep=False).get("training")
    training = settings.get("training", {})
    if defaults is not None and isinstance(training, dict):
        chosen: dict[str, Any] = {"batch_size": plan.batch_size}
        if defaults.augmentation != "none":  # the others learn from images as they are
            chosen["augmentation"] = plan.augmentation
        settings["training"] = chosen | training
    return make_method(plan.method, own | settings)


def fit(
    out: Path,
    plan: Plan,
    device: str,
    token: str,
    progress: Progress,
    say: Callable[[str], None],
    comm: Comm = ALONE,
) -> dict[str, Any]:
    """Fit the plan's method on ``pixels.npy``; write the model, its history and the baselines' labels.

    ``token`` names the inputs: a checkpoint of other inputs is thrown away, one of the same inputs is continued. Of
    several processes (``comm``) the first writes; the others are done when the model is fitted.
    """
    checkpoint = comm.first(lambda: _checkpoint(out, token))
    ids, image_of = image_numbers(out)
    chosen = fitted_images(len(ids), plan)
    comm.first(lambda: prepare_batches(out, plan, chosen))
    rows, whole = chosen[image_of], clustered(out, plan.method)
    comm.first(lambda: copy_drawn(out, whole, rows))
    material = drawn(out, whole, rows)
    if not (comm.rank or chosen.all()):
        say(f"fit: on {things(int(chosen.sum()), 'images')} of {count_words(len(ids))}, drawn at random")
    method = method_of(plan, device).fit(material, checkpoint=checkpoint, progress=progress, comm=comm)
    if comm.rank:
        return {}
    adjusted = judge_adjustment(out, method, material)
    for sentence in [*method.warnings_, *adjusted]:
        say(f"fit: {sentence}")
    method.save(out)
    with atomic(out / "history.jsonl") as part:
        part.write_text("".join(json.dumps(record) + "\n" for record in method.history_), encoding="utf-8")
    _baselines(out, method.n_clusters_, plan)
    forget_checkpoints(out)
    used = len(np.unique(method.labels_))
    epochs = f" in {len(method.history_)} epochs" if method.history_ else ""
    say(f"fit: the method {plan.method} made {used} clusters{epochs}")
    return {"clusters_used": used, "warnings": method.warnings_, "threads": processors(), "device": str(method.device_)}


def _checkpoint(out: Path, token: str) -> Path:
    folder, file = RunFolder(out), out / "checkpoint.safetensors"
    if folder.state().get("fitting") != token:
        forget_checkpoints(out)
        folder.note("fitting", token)
    return file


def clustered(out: Path, method: str) -> NDArray[Any] | InBatches:
    """Return what is clustered, with its batches where they are adjusted for.

    That is the pixels, or the vectors that the user gave for the same images.

    Raises
    ------
    FitError : not one vector per decoded image
    RunFolderError : the vectors are not there
    """
    pixels: NDArray[Any] = np.load(out / "pixels.npy", mmap_mode="r")
    if method != "features":
        return in_batches(out, pixels)
    if not (out / "features.npy").exists():
        raise RunFolderError(f"features.npy is missing in {out}. Run again with --features FILE.npy.")
    vectors: NDArray[Any] = np.load(out / "features.npy", mmap_mode="r")
    if len(vectors) != len(pixels):
        raise FitError(
            f"--features holds {len(vectors)} vectors, but {len(pixels)} images were decoded. Give one for each row of "
            "OUT/images.parquet, in its order."
        )
    return in_batches(out, vectors)


def _baselines(out: Path, n_clusters: int, plan: Plan) -> None:
    """Cluster the same pixels without training, so that the deep clustering never stands alone."""
    pixels: NDArray[Any] = np.load(out / "pixels.npy", mmap_mode="r")
    ids, image_of = image_numbers(out)
    chosen = fitted_images(len(ids), plan)
    rows = chosen[image_of]
    if plan.method == "features":  # else they are there from the fit
        copy_drawn(out, pixels, rows)
    some = drawn(out, pixels, rows)
    components = PrincipalComponents(n_clusters, random_state=plan.seed).fit(some).transform(pixels)
    _, means = average_rows(image_of, components)
    table = {"image_id": ids}
    z = torch.from_numpy(means)
    of_fit = z[torch.from_numpy(chosen)]
    for name, how in (("pca_kmeans", "kmeans"), ("pixel_graph", "graph")):
        reader = read_clusters(of_fit, how, min(n_clusters, len(of_fit)), plan.seed).reader
        table[name] = torch.cat([reader(part).argmax(1) for part in z.split(READ_AT_ONCE)]).numpy()
    write_table(out / "baselines.parquet", pa.table(table))


def average_rows(ids: NDArray[Any], *arrays: Floats) -> tuple[NDArray[Any], ...]:
    """Average the rows of each image, images in the order of their first row: image ids, then the averaged arrays."""
    if len(np.unique(ids)) == len(ids):
        return ids, *arrays
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(first)
    group = np.argsort(order)[inverse]
    counts = np.bincount(group)[:, None]
    means = []
    for values in arrays:
        sums = np.zeros((len(first), values.shape[1]))
        np.add.at(sums, group, values)
        means.append((sums / counts).astype(np.float32))
    return ids[np.sort(first)], *means
