"""Cluster activation maps: what in an image speaks for its cluster, in 2-D and 3-D, by any rule of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medstrata.errors import FitError
from medstrata.evidence.maps.integrated_gradients import IntegratedGradients
from medstrata.evidence.maps.rule import NO_NUMBERS, Cohort, Explainable, Question, Rule, at_once, measure_cohort
from medstrata.learning.batches import Images, as_images
from medstrata.run import Progress, no_progress

Clusters = int | Sequence[int] | NDArray[np.integer[Any]] | None


@dataclass(frozen=True)
class ClusterMaps:
    """Maps of n images.

    ``maps`` (n, \\*grid) float32: above zero what speaks for the cluster, below what speaks against it (Clam, Grad-CAM
    and the controls never go below zero). ``cluster`` (n,): which cluster each explains; ``against`` (n,): which one it
    is compared with, -1 for all others. ``facts``: figures (n,) that the rule reports of each map.
    """

    maps: NDArray[np.float32]
    cluster: NDArray[np.int64]
    against: NDArray[np.int64]
    facts: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def of_cluster(self, cluster: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the map of a cluster: mean and standard deviation (\\*grid) of the signed maps that explain it.

        Raises
        ------
        FitError : none of them does
        """
        own = self.maps[self.cluster == cluster]
        if not len(own):
            raise FitError(f"None of these maps explains cluster {cluster}, only {np.unique(self.cluster).tolist()}.")
        return own.mean(0), own.std(0)


def cluster_activation_map(
    model: Explainable,
    images: Any,
    rule: Rule = IntegratedGradients(),  # noqa: B008 - frozen
    cluster: Clusters = None,
    against: Clusters = None,
    *,
    cohort: Any = None,
    batch_size: int = 16,
    progress: Progress = no_progress,
) -> ClusterMaps:
    """Explain why each image is in its cluster.

    Parameters
    ----------
    model : a fitted method
    images : array or memory map (N, H, W), (N, C, H, W) or (N, C, D, H, W) of stored values, as for ``model.predict``
    rule : ``IntegratedGradients()``, or ``Clam()`` as published
    cluster : the cluster to explain, one for all or one per image; None: each image's own
    against : "why this cluster and not that one", one for all or one per image; None or -1: against all others
    cohort : the images that the clusters were found on, as an array or measured (``measure_cohort``); None: ``images``
        themselves, which must then show the other clusters too
    batch_size : images explained at once, at most; the result does not depend on it
    progress : told what has been done, ("maps", done, of)

    Raises
    ------
    FitError : images of a wrong shape or not finite, a cluster that the model does not have, one against itself, a
        network that gives NaN
    """
    _check_rule(model, rule)
    array = _as_images(model, images)
    if batch_size < 1:
        raise FitError(f"batch_size is {batch_size}, but must be at least 1.")
    if not np.isfinite(array).all():
        raise FitError("The images hold NaN or infinite values. Leave these images out or repair them.")
    asked = None if cluster is None else _per_image(cluster, len(array))
    compared = _per_image(-1 if against is None else against, len(array))
    known = _measured(model, array, cohort) if rule.needs_cohort else None
    parts, step = [], at_once(array, batch_size)
    for start in range(0, len(array), step):
        block = slice(start, start + step)
        x = model.tensor(array[block])
        q = model.soft_assignment(x)
        question = _question(None if asked is None else asked[block], compared[block], q, known)
        with torch.enable_grad():  # rules that need no gradients say so themselves
            maps, facts = rule.explain(model, x, question)
        if not isinstance(maps, torch.Tensor) or maps.shape != (len(x), *x.shape[2:]):
            raise FitError(f"{rule.name}: explain must return maps {(len(x), *x.shape[2:])} as a tensor, and figures.")
        if not torch.isfinite(maps).all():
            raise FitError(NO_NUMBERS)
        parts.append((maps, question, facts))
        progress("maps", min(start + step, len(array)), len(array))
    return ClusterMaps(
        torch.cat([maps for maps, _, _ in parts]).float().cpu().numpy(),
        torch.cat([question.cluster for _, question, _ in parts]).cpu().numpy(),
        torch.cat([question.against for _, question, _ in parts]).cpu().numpy(),
        {key: torch.cat([facts[key] for _, _, facts in parts]).double().cpu().numpy() for key in parts[0][2]},
    )


def _as_images(model: Explainable, images: Any) -> Images:
    if isinstance(images, np.ndarray) and images.ndim == 2:
        raise FitError("Vectors have no places, so there are no feature maps to explain. Give images.")
    array = as_images(images)
    expected = getattr(model, "image_shape_", None)
    if expected is not None and array.shape[1:] != tuple(expected):
        raise FitError(
            f"Images of shape {array.shape[1:]} do not fit a model of images of shape {tuple(expected)}. Bring them "
            "onto the same grid first (medstrata assign does it)."
        )
    return array


def _check_rule(model: Explainable, rule: Rule) -> None:
    if isinstance(rule, type) or not callable(getattr(rule, "explain", None)):
        raise FitError(f"{rule!r} is no rule. Give an object, such as IntegratedGradients() or Clam().")
    if hasattr(model, "fit") and not hasattr(model, "network_"):
        raise FitError(f"This {type(model).__name__} is not fitted yet. Call fit first, or load a model.")


def _measured(model: Explainable, images: Images, cohort: Any) -> Cohort:
    if isinstance(cohort, Cohort):
        return cohort
    array = images if cohort is None else _as_images(model, cohort)
    if not np.isfinite(array).all():
        raise FitError("The images of the cohort hold NaN or infinite values. Leave these images out or repair them.")
    found = measure_cohort(model, array)
    if cohort is None and int((found.sizes > 0).sum()) < 2:
        raise FitError(
            "All these images are in one cluster, so there is nothing to compare them with. Give cohort=, the images "
            "that the clusters were found on."
        )
    return found


def _per_image(cluster: Clusters, count: int) -> NDArray[np.int64]:
    asked = np.asarray(cluster)
    if asked.dtype.kind not in "iu":
        raise FitError(f"Clusters are whole numbers, not {asked.dtype}.")
    asked = asked.astype(np.int64)
    if asked.shape not in ((), (count,)):
        raise FitError(f"{asked.size} clusters were given for {count} images. Give one, or one per image.")
    return np.broadcast_to(asked, (count,))


def _question(
    asked: NDArray[np.int64] | None, against: NDArray[np.int64], q: torch.Tensor, cohort: Cohort | None
) -> Question:
    """Return the question about images of soft assignment ``q`` (n, K), checked."""
    cluster = q.argmax(1).cpu().numpy() if asked is None else asked
    for numbers, least in ((cluster, 0), (against, -1)):
        if numbers.min() < least or numbers.max() >= q.shape[1]:
            wrong = int(numbers[(numbers < least) | (numbers >= q.shape[1])][0])
            raise FitError(f"There is no cluster {wrong}: the model has clusters 0 to {q.shape[1] - 1}.")
    if (cluster == against).any():
        raise FitError(f"Cluster {int(against[cluster == against][0])} cannot be compared with itself.")
    return Question(torch.tensor(cluster, device=q.device), torch.tensor(against, device=q.device), cohort)
