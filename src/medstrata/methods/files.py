"""Model files: ``model.safetensors`` and ``model.json``. They hold numbers only; loading executes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import nn

from medstrata._version import __version__
from medstrata.errors import FitError, MedstrataError, RunFolderError
from medstrata.learning.adjustment import Adjustment
from medstrata.learning.batches import Preprocessing
from medstrata.learning.checkpoints import module_tensors, restore_module
from medstrata.learning.reading import empty_reader
from medstrata.methods import METHODS
from medstrata.methods.settings import check_fitted, make_method, settings_of
from medstrata.run import atomic, write_json

if TYPE_CHECKING:
    from medstrata.methods.method import ClusteringMethod

ADJUSTMENT = "adjustment"  # before the names of the tensors that adjust for batches
OFFSET = "preprocessing.offset"  # the name of the mean image among the tensors of a model file


def save(method: ClusteringMethod, folder: Path) -> None:
    """Write a fitted method into ``folder``.

    Raises
    ------
    FitError : not fitted, settings that were changed since the fit, or a class that is not in ``METHODS``
    """
    check_fitted(method)
    name = next((name for name, target in METHODS.items() if target.endswith(f":{type(method).__name__}")), None)
    if name is None:
        raise FitError(
            f"{type(method).__name__} is no method of medstrata, so that it could not be loaded again. "
            "Fit the method that it derives from."
        )
    changed = [key for key, value in settings_of(method).items() if key != "device" and value != method.settings_[key]]
    if changed:
        raise FitError(f"{changed[0]} was changed since the fit. Call fit again, or set it back before saving.")
    tensors = {OFFSET: method.preprocessing_.offset.contiguous()}
    if not method.fingerprint_:  # a module that the user gave is the user's: only its fingerprint is kept
        tensors |= module_tensors("network", method.network_)
    if method.reader_ is not None:
        tensors |= module_tensors("reader", method.reader_)
    if method.adjustment_ is not None:
        tensors |= module_tensors(ADJUSTMENT, method.adjustment_)
    with atomic(folder / "model.safetensors") as part:
        part.write_bytes(to_bytes(tensors))  # not by safetensors: a full disk is then an OSError
    write_json(
        folder / "model.json",
        {
            "medstrata": __version__,
            "method": name,
            "settings": settings_of(method),
            "image_shape": list(method.image_shape_),
            "n_clusters": method.n_clusters_,
            "embedding_size": method.embedding_size_,
            "scale": method.preprocessing_.scale,
            "background": method.preprocessing_.background,
            "values": [method.preprocessing_.low, method.preprocessing_.high],
            "module": method.fingerprint_,
            "reading": method.reading_,
            "warnings": method.warnings_,
        },
    )


def load(folder: Path | str, device: str = "auto", module: nn.Module | None = None) -> ClusteringMethod:
    """Load a fitted method from ``folder``. ``module``: the network of a ``FrozenFeatures`` that was made with one.

    Raises
    ------
    RunFolderError : no model there, damaged files, files of another version, or another module than at the fit
    """
    folder = Path(folder)
    try:
        values = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        given = {"device": device} | ({} if module is None else {"module": module})
        method = make_method(values["method"], {**values["settings"], **given})
        method.history_, method.warnings_, method.reading_ = [], values["warnings"], values["reading"]
        method.settings_ = settings_of(method)
        tensors = load_file(folder / "model.safetensors")
        preprocessing = Preprocessing(tensors[OFFSET], values["scale"], values["background"], *values["values"])
        method._prepare(tuple(values["image_shape"]), preprocessing)
        if values["module"] != method.fingerprint_:
            other = "a module of its own" if module is None else "another module"
            raise RunFolderError(f"The model in {folder} was fitted on {other}. Give that module: load(..., module=).")
        method.n_clusters_, method.embedding_size_ = values["n_clusters"], values["embedding_size"]
        if not method.fingerprint_:
            restore_module("network", method.network_, tensors)
        if method.assignment != "own":
            method.reader_ = empty_reader(method.assignment, values["embedding_size"], method.n_clusters_)
            restore_module("reader", method.reader_, tensors)
            method.reader_.to(method.device_)
        if f"{ADJUSTMENT}.factors" in tensors:
            method.adjustment_ = Adjustment(0, values["embedding_size"]).to(method.device_)
            restore_module(ADJUSTMENT, method.adjustment_, tensors)
    except FileNotFoundError as error:
        raise RunFolderError(f"There is no model in {folder}. Run medstrata fit on it first.") from error
    except MedstrataError:
        raise
    except Exception as error:  # whatever a damaged file raises, the advice is the same
        raise RunFolderError(f"The model in {folder} cannot be loaded ({error}). Run medstrata fit again.") from error
    method.network_.eval()
    return method
