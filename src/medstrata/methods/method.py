"""The contract of every clustering method: a scikit-learn estimator over images.

A method's own file says which network it trains on which loss, and how an embedding becomes a soft assignment. Shared
pieces do the rest: ``learning.fitting`` epochs, ``learning.reading`` clusters read off the graph of the embedding,
``methods.files`` saving. ``X`` is an array or memory map ``(N, H, W)``, ``(N, C, H, W)`` or ``(N, C, D, H, W)``,
integer or float, or ``learning.adjustment.InBatches`` of one: batches that are adjusted for. Shapes below: N images,
C channels, F feature maps, Z embedding size, K clusters.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClusterMixin, TransformerMixin
from torch import nn

from medstrata.errors import FitError
from medstrata.learning.adjustment import Adjustment, apart
from medstrata.learning.batches import Images, Preprocessing, as_images, in_blocks, measure, other_scale
from medstrata.learning.comm import ALONE, Comm, choose_device, placed
from medstrata.learning.fitting import Fit
from medstrata.learning.reading import read_clusters
from medstrata.learning.train import Training
from medstrata.methods.adjusting import adjust
from medstrata.methods.clusters import read_clusters_of
from medstrata.methods.files import save
from medstrata.methods.settings import check_fitted, check_settings, settings_of, unlikely_settings
from medstrata.run import Progress, no_progress

BLOCK = 256  # images of one evaluation pass


class ClusteringMethod(ClusterMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Base of all methods. A subclass defines ``_build``, ``_train``, ``_features``, ``_embed`` and ``_assign``.

    Attributes
    ----------
    labels_ : (N,) int64, the model's own assignment of the training images; equals ``predict`` on them
    n_clusters_ : K as asked for or, with ``n_clusters="auto"``, as found
    history_ : one dict per epoch
    adjustment_ : how batches are brought to one mean and scale, None where none were given
    reading_, warnings_ : facts about how the clusters were read off the embedding; sentences about collapse and repairs
    """

    ASSIGNMENTS: ClassVar[tuple[str, ...]] = ("own", "graph")
    WITHOUT_EFFECT: ClassVar[tuple[str, ...]] = ()  # fields of ``training`` that the method does not use
    runs = 1  # whose embeddings stand side by side, see ``methods.fusion``
    has_maps = True  # whether an activation map of ``feature_maps`` says something

    n_clusters: int | str
    assignment: str
    training: Training
    random_state: int
    device: str
    reader_: nn.Module | None
    adjustment_: Adjustment | None

    def _build(self, image_shape: tuple[int, ...]) -> nn.Module:  # untrained, for images (C, ...)
        raise NotImplementedError

    def _train(self, images: Images, fit: Fit) -> None:
        raise NotImplementedError

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _embed(self, features: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _assign(self, z: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def fit(
        self,
        X: Any,
        y: None = None,
        *,
        checkpoint: Path | str | None = None,
        progress: Progress = no_progress,
        comm: Comm = ALONE,
    ) -> Self:
        """Cluster ``X``. ``y`` is there for scikit-learn pipelines and must be None: labels are never read.

        ``checkpoint``: a file that is written after every epoch, at most once a second; a fit that finds it goes on
        from there and ends with the same labels as one that was not interrupted. ``comm``: processes that fit together
        (``learning.comm.joined``); each makes the same call and ends with the same model.

        Raises
        ------
        FitError : fewer images than clusters, all images equal, values that are not finite, a wrong shape
        """
        if y is not None:
            raise FitError("Labels must not be given to fit: clustering never sees them. Score afterwards instead.")
        images, batches = apart(X, self._as_images)
        check_settings(self, len(images), batches is not None)
        self.__dict__.pop("n_clusters_", None)  # until the end of the fit there is no model, see ``check_fitted``
        self.history_: list[dict[str, Any]] = []
        self.warnings_: list[str] = unlikely_settings(self)
        self.settings_ = {**settings_of(self), "device": ""}  # another device may go on
        self._prepare(images.shape[1:], measure(images, self.training.preprocessing))
        fit = Fit(self.network_, images, self.tensor, self.training, self.random_state, self.history_, comm)
        fit.keep_at(None if checkpoint is None else Path(checkpoint), self.settings_, progress)
        self._train(images, fit)
        read_clusters_of(self, comm.gather(self._embed_all(fit.share)), batches, comm)
        return self

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return the most probable cluster (N,) of each image."""
        return self.predict_proba(X).argmax(1)  # type: ignore[no-any-return]

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
        images, batches = apart(X, self._as_images)
        check_fitted(self, images)
        if sentence := other_scale(images, self.preprocessing_):
            warnings.warn(sentence, stacklevel=3)
        z = adjust(self, self._embed_all(images, progress), batches)
        return z.cpu().numpy(), self._assign_all(z).cpu().numpy()

    @property
    def background(self) -> float:
        """What a voxel that tells nothing has in the network's space: its mean over the training images."""
        return (self.preprocessing_.background or 0.0) / self.preprocessing_.scale

    def tensor(self, block: Images) -> torch.Tensor:
        """Stored values ``(n, C, ...)`` -> float32 tensor as the network sees it."""
        return self.preprocessing_(block, self.device_)

    @torch.inference_mode()
    def feature_maps(self, x: torch.Tensor) -> torch.Tensor:
        """Network input ``(n, C, ...)`` -> feature maps ``(n, F, ...)`` of the layer that maps explain."""
        self.network_.eval()
        return self._features(x)

    @torch.inference_mode()
    def soft_assignment(self, x: torch.Tensor) -> torch.Tensor:
        """Network input ``(n, C, ...)`` -> soft assignment ``(n, K)``."""
        return self.differentiable_assignment(x)

    def differentiable_assignment(self, x: torch.Tensor, of_features: bool = False) -> torch.Tensor:
        """As ``soft_assignment``, with gradients with respect to x; ``of_features``: x is ``feature_maps``."""
        self.network_.eval()
        z = self._embed(x if of_features else self._features(x))
        return self._soft(z if self.adjustment_ is None else self.adjustment_(z))

    def save(self, folder: Path | str) -> None:
        """Write ``model.safetensors`` and ``model.json`` into ``folder``; errors as in ``methods.files.save``."""
        save(self, Path(folder))

    def _embed_all(self, images: Images, progress: Progress = no_progress) -> torch.Tensor:
        """Return the embeddings (N, Z) of all images, in evaluation mode, without gradients."""
        self.network_.eval()
        with torch.no_grad():  # not inference mode: the embeddings may become prototypes, which are trained
            z = in_blocks(images, BLOCK, lambda some: self._embed(self._features(self.tensor(some))), progress)
        if not torch.isfinite(z).all():
            raise FitError("The network gives NaN. If it was trained here, it diverged: use a smaller learning_rate.")
        return z

    def _assign_all(self, z: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, Z) -> soft assignments (N, K), in blocks, without gradients."""
        with torch.no_grad():
            return torch.cat([self._soft(part) for part in z.split(1 << 14)])

    def _soft(self, z: torch.Tensor) -> torch.Tensor:
        return self._assign(z) if self.reader_ is None else self.reader_(z)

    def _read(self, z: torch.Tensor) -> None:
        self.reading_: dict[str, Any] = {}
        if self.assignment != "own":
            reading = read_clusters(z, self.assignment, self.n_clusters, self.random_state, self.runs)
            self.reader_, self.reading_ = reading.reader.to(self.device_), reading.facts
        q = self._assign_all(z)
        self.n_clusters_, self.embedding_size_ = q.shape[1], z.shape[1]
        self.labels_ = q.argmax(1).cpu().numpy()

    def _as_images(self, X: Any) -> Images:
        return as_images(X)

    def _prepare(self, image_shape: tuple[int, ...], preprocessing: Preprocessing) -> None:
        self.device_, self.image_shape_ = choose_device(self.device), tuple(image_shape)
        self.preprocessing_ = preprocessing
        self.reader_ = self.adjustment_ = None
        self.fingerprint_ = ""  # of a module that the user gave, see ``FrozenFeatures``
        self.network_: Any = placed(self._build(self.image_shape_), self.device_, len(image_shape) - 1)
