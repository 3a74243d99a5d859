"""DeepMCAT with pseudo-labels of equal shares, by Sinkhorn's algorithm: is collapse, or a better clustering, at stake?

    Caron, Misra, Mairal, Goyal, Bojanowski, Joulin: Unsupervised learning of visual features by contrasting cluster
    assignments. NeurIPS 2020. arXiv:2006.09882 (SwAV).

A row of the table alone: archives have no equal shares, and it does not help where they do (docs/results.md).
"""

from __future__ import annotations

from typing import Any

import torch

from medstrata.learning.comm import ALONE, Comm
from medstrata.learning.fitting import Fit
from medstrata.methods.deepmcat import DeepMCAT

TEMPERATURE, ITERATIONS = 0.05, 3  # of SwAV


def equal_shares(
    similarity: torch.Tensor, temperature: float = TEMPERATURE, iterations: int = ITERATIONS, comm: Comm = ALONE
) -> torch.Tensor:
    """Return soft assignments (n, M), rows of sum 1, of which every prototype has about the same share.

    ``similarity`` (n, M): cosines of the images of this process. With K = exp(similarity / temperature) the assignments
    are diag(u) K diag(v); only v is exchanged between processes, and K is never rewritten.
    """
    kernel = ((similarity.double() - 1) / temperature).exp()
    share = comm.count(similarity) / similarity.shape[1]
    u = torch.ones(len(kernel), dtype=kernel.dtype, device=kernel.device)
    v = torch.ones(kernel.shape[1], dtype=kernel.dtype, device=kernel.device)
    for _ in range(iterations):
        v = share / comm.total(kernel.T @ u)
        u = 1 / (kernel @ v)
    return u[:, None] * kernel * v


class BalancedDeepMCAT(DeepMCAT):
    """DeepMCAT whose pseudo-labels have equal shares."""

    def _new_pseudo_labels(self, fit: Fit, epoch: int) -> dict[str, Any]:
        record = super()._new_pseudo_labels(fit, epoch)
        if record:
            heads = fit.kept["prototypes"].split(fit.kept["sizes"].tolist())
            bank = fit.of_images["bank"]
            found = [equal_shares(bank @ prototypes.T, comm=fit.comm).argmax(1) for prototypes in heads]
            fit.of_images["labels"] = torch.stack(found, dim=1)
        return record
