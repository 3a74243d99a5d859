"""The contract of every clustering method: a scikit-learn estimator over images.

A method's own file says how it trains and how a vector becomes a soft assignment; this file holds what is the same for
all: checks, preprocessing, passes over the whole set, saving and loading. ``X`` is an array or memory map of shape
``(N, H, W)``, ``(N, C, H, W)`` or ``(N, C, D, H, W)``, integer or float. Shapes below: N images, C channels,
F feature maps, Z embedding size, K clusters.
"""

from __future__ import annotations

import json
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from sklearn.base import BaseEstimator, ClusterMixin, TransformerMixin
from torch import nn

from medstrata._version import __version__
from medstrata.errors import FitError, MedstrataError, RunFolderError
from medstrata.learning.batches import KINDS, Images, Preprocessing, as_images, blocks, measure
from medstrata.learning.comm import choose_device
from medstrata.learning.train import Training, collapse_warning
from medstrata.methods import METHODS
from medstrata.run import Progress, atomic, no_progress, write_json

BLOCK = 256  # images of one evaluation pass
OFFSET = "preprocessing.offset"  # the name of the mean image among the tensors of a model file


class ClusteringMethod(ClusterMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Base of all methods. A subclass defines ``_build``, ``_train``, ``_features``, ``_embed`` and ``_assign``.

    Attributes
    ----------
    labels_ : (N,) int64, the model's own assignment of the training images; equals ``predict`` on them
    history_ : one dict per epoch
    warnings_ : sentences about collapse and repairs
    """

    n_clusters: int
    preprocessing: str
    training: Training
    random_state: int
    device: str

    # -- what a method's own file says ---------------------------------------------------------------------------
    def _build(self, image_shape: tuple[int, ...]) -> nn.Module:
        """Return the untrained network for images ``(C, H, W)`` or ``(C, D, H, W)``."""
        raise NotImplementedError

    def _train(self, images: Images, checkpoint: Path | None, progress: Progress) -> None:
        raise NotImplementedError

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _embed(self, features: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _assign(self, z: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    # -- the estimator -------------------------------------------------------------------------------------------
    def fit(self, X: Any, y: None = None, *, checkpoint: Path | None = None, progress: Progress = no_progress) -> Self:
        """Cluster ``X``. ``y`` is there for scikit-learn pipelines and must be None: labels are never read.

        ``checkpoint``: a file that is written after every epoch; a fit that finds it goes on from there and ends with
        the same labels as one that was not interrupted.

        Raises
        ------
        FitError : fewer images than clusters, all images equal, values that are not finite, a wrong shape
        """
        if y is not None:
            raise FitError("Labels must not be given to fit: clustering never sees them. Score afterwards instead.")
        images = as_images(X)
        if not 1 <= self.n_clusters <= len(images):
            raise FitError(
                f"{self.n_clusters} clusters were asked for and there are {len(images)} images. "
                f"Choose between 1 and {len(images)} clusters."
            )
        self.history_: list[dict[str, Any]] = []
        self.warnings_: list[str] = []
        self._prepare(images.shape[1:], measure(images, self.preprocessing))
        self._train(images, checkpoint, progress)
        q = self.predict_proba(images)
        if not np.isfinite(q).all():
            raise FitError(
                "Training diverged: the network gives NaN. Use a smaller learning_rate (plan.json: settings)."
            )
        self.labels_ = q.argmax(1)
        self._warn(collapse_warning(torch.from_numpy(self.labels_), self.n_clusters))
        return self

    def fit_predict(self, X: Any, y: None = None, **options: Any) -> NDArray[np.int64]:
        """Fit and return ``labels_`` (N,)."""
        labels: NDArray[np.int64] = self.fit(X, y, **options).labels_
        return labels

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return the most probable cluster (N,) of each image."""
        labels: NDArray[np.int64] = self.predict_proba(X).argmax(1)
        return labels

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Return the soft assignment (N, K); rows sum to 1."""
        return self.embed_and_assign(X)[1]

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the embedding (N, Z)."""
        return self.embed_and_assign(X)[0]

    def embed_and_assign(
        self, X: Any, progress: Progress = no_progress
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the embedding (N, Z) and the soft assignment (N, K) in one pass."""
        images = self._check_fitted(as_images(X))
        z = torch.cat([self._embed_block(images, part, progress) for part in blocks(images, BLOCK)])
        return z.cpu().numpy(), self._assign_all(z).cpu().numpy()

    def _assign_all(self, z: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, Z) -> soft assignments (N, K), in blocks, without gradients."""
        with torch.inference_mode():
            return torch.cat([self._assign(part) for part in z.split(1 << 14)])

    def _embed_block(self, images: Images, part: slice, progress: Progress) -> torch.Tensor:
        with torch.inference_mode():
            self.network_.eval()
            z = self._embed(self._features(self.tensor(images[part])))
        progress("embedding", part.stop, len(images))
        return z

    # -- what maps need ------------------------------------------------------------------------------------------
    @property
    def background(self) -> float:
        """What a voxel that tells nothing has in the network's space: its mean over the training images."""
        published = self.preprocessing_.background
        return 0.0 if published is None else published / self.preprocessing_.scale

    def tensor(self, block: Images) -> torch.Tensor:
        """Stored values ``(n, C, ...)`` -> float32 tensor as the network sees it."""
        return self.preprocessing_(block, self.device_)

    def feature_maps(self, x: torch.Tensor) -> torch.Tensor:
        """Network input ``(n, C, ...)`` -> feature maps ``(n, F, ...)`` of the layer that maps explain."""
        with torch.inference_mode():
            self.network_.eval()
            return self._features(x)

    def soft_assignment(self, x: torch.Tensor) -> torch.Tensor:
        """Network input ``(n, C, ...)`` -> soft assignment ``(n, K)``."""
        with torch.inference_mode():
            self.network_.eval()
            return self._assign(self._embed(self._features(x)))

    # -- saving --------------------------------------------------------------------------------------------------
    def save(self, folder: Path | str) -> None:
        """Write ``model.safetensors`` and ``model.json`` into ``folder``. Neither holds anything but numbers."""
        folder = Path(folder)
        self._check_fitted(None)
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.network_.state_dict().items()}
        tensors[OFFSET] = self.preprocessing_.offset.contiguous()
        with atomic(folder / "model.safetensors") as part:
            part.write_bytes(save(tensors))  # not by safetensors: a full disk is then an OSError
        write_json(
            folder / "model.json",
            {
                "medstrata": __version__,
                "method": _name_of(type(self)),
                "settings": settings_of(self),
                "image_shape": list(self.image_shape_),
                "scale": self.preprocessing_.scale,
                "background": self.preprocessing_.background,
                "warnings": self.warnings_,
            },
        )

    def _prepare(self, image_shape: tuple[int, ...], preprocessing: Preprocessing) -> None:
        self.device_ = choose_device(self.device)
        self.image_shape_ = tuple(image_shape)
        self.preprocessing_ = preprocessing
        self.network_ = self._build(self.image_shape_).to(self.device_)

    def _check_fitted(self, images: Images | None) -> Images:
        if not hasattr(self, "network_"):
            raise FitError(f"This {type(self).__name__} is not fitted yet. Call fit first, or load a model.")
        if images is None:
            return np.empty(0)
        if images.shape[1:] != self.image_shape_:
            raise FitError(
                f"Images of shape {images.shape[1:]} do not fit a model of images of shape {self.image_shape_}. "
                "Bring them onto the same grid first (medstrata assign does it)."
            )
        return images

    def _warn(self, sentence: str) -> None:
        if sentence and sentence not in self.warnings_:
            self.warnings_.append(sentence)
            warnings.warn(sentence, stacklevel=3)


def settings_of(method: ClusteringMethod) -> dict[str, Any]:
    """Return the constructor arguments as JSON values."""
    return {
        name: vars(value) if isinstance(value, Training) else list(value) if isinstance(value, tuple) else value
        for name, value in method.get_params(deep=False).items()
    }


def make_method(name: str, settings: dict[str, Any]) -> ClusteringMethod:
    """Construct a method by its name in ``METHODS`` from JSON values.

    Raises
    ------
    FitError : unknown name or unknown setting
    """
    if name not in METHODS:
        raise FitError(f"There is no method {name!r}. Choose one of: {', '.join(METHODS)}.")
    module, cls = METHODS[name].split(":")
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()
    }
    try:
        if isinstance(values.get("training"), dict):
            values["training"] = Training(**values["training"])
            _check_types(name, vars(Training()), vars(values["training"]))
        method: ClusteringMethod = getattr(import_module(module), cls)(**values)
    except TypeError as error:
        raise FitError(f"Method {name!r} does not take these settings: {error}. Correct them in plan.json.") from error
    _check_types(name, getattr(import_module(module), cls)().get_params(deep=False), values)
    if method.preprocessing not in KINDS:
        raise FitError(f"preprocessing is {method.preprocessing!r}, but must be one of: {', '.join(KINDS)}.")
    return method


def _check_types(name: str, defaults: dict[str, Any], values: dict[str, Any]) -> None:
    """Raise FitError for a value of another type than its default (a whole number may stand for a fraction)."""
    for key, value in values.items():
        kind = type(defaults[key])
        fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise FitError(
                f"Method {name!r}: setting {key!r} is {value!r}, but must be of type {kind.__name__} "
                f"(default {defaults[key]!r})."
            )


def load(folder: Path | str, device: str = "auto") -> ClusteringMethod:
    """Load a fitted method from ``folder``. Nothing in the files is ever executed.

    Raises
    ------
    RunFolderError : no model there, damaged files, or files of another version
    """
    folder = Path(folder)
    try:
        values = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        method = make_method(values["method"], {**values["settings"], "device": device})
        method.history_, method.warnings_ = [], values["warnings"]
        tensors = load_file(folder / "model.safetensors")
        preprocessing = Preprocessing(tensors.pop(OFFSET), values["scale"], values["background"])
        method._prepare(tuple(values["image_shape"]), preprocessing)
        method.network_.load_state_dict(tensors)
    except FileNotFoundError as error:
        raise RunFolderError(f"There is no model in {folder}. Run medstrata fit on it first.") from error
    except MedstrataError:
        raise
    except Exception as error:  # whatever a damaged file raises, the advice is the same
        raise RunFolderError(f"The model in {folder} cannot be loaded ({error}). Run medstrata fit again.") from error
    method.network_.eval()
    return method


def _name_of(cls: type) -> str:
    return next(name for name, target in METHODS.items() if target.endswith(f":{cls.__name__}"))
