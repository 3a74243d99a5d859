"""A method whose clusters are read off embeddings that were normalised within batches (``learning.adjustment``)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from medstrata.errors import FitError
from medstrata.learning.adjustment import InBatches, learn_adjustment
from medstrata.learning.reading import read_clusters

if TYPE_CHECKING:
    from medstrata.methods.method import ClusteringMethod


def learn_batches(method: ClusteringMethod, z: torch.Tensor, batches: InBatches | None) -> torch.Tensor:
    """Return the embeddings z (N, Z) that clusters are read off, adjusted where batches are given.

    Sets ``adjustment_`` and ``unadjusted_labels_`` (N,), the clusters there would be without it.
    """
    if batches is None:
        return z
    found = read_clusters(z, method.assignment, method.n_clusters, method.random_state, method.runs)
    before = found.reader.to(z.device)
    with torch.no_grad():
        method.unadjusted_labels_ = torch.cat([before(part).argmax(1) for part in z.split(1 << 14)]).cpu().numpy()
    method.adjustment_ = learn_adjustment(z, batches.numbers, batches.count)
    return method.adjustment_(z, batches.numbers)  # type: ignore[no-any-return]


def adjust(method: ClusteringMethod, z: torch.Tensor, batches: InBatches | None) -> torch.Tensor:
    """Return embeddings z (N, Z) as the clusters of a fitted method were read off them.

    Raises
    ------
    FitError : batches other than those of the fit
    """
    adjustment = method.adjustment_
    if adjustment is None:
        if batches is not None:
            raise FitError("This model was fitted without batches. Give the images alone.")
        return z
    if batches is None:
        warnings.warn("The model adjusts for batches, and none are given: the mean over them is taken.", stacklevel=4)
        return adjustment(z)  # type: ignore[no-any-return]
    if batches.count != len(adjustment.factors) - 1:
        raise FitError(f"The model knows {len(adjustment.factors) - 1} batches, the images have {batches.count}.")
    return adjustment(z, batches.numbers)  # type: ignore[no-any-return]


def no_maps(method: ClusteringMethod) -> str:
    """Say why there are no activation maps of ``method``, "" where there are."""
    if not method.has_maps:
        return "this method has no feature maps, so there are no activation maps"
    if method.adjustment_ is not None:
        return (
            "there are no activation maps of a run that adjusts for batches: a map compares an image with the mean "
            "image of other clusters, which mixes the batches, and would show their technique as well"
        )
    return ""
