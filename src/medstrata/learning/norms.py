"""BatchNorm over the images of all processes: each computes its part, mean and variance are of the whole batch."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from medstrata.learning.comm import Comm


class BatchNormOverAll(_BatchNorm):
    """``nn.BatchNorm1d``, ``2d`` or ``3d`` whose statistics are those of the batches of all processes together.

    Values, running statistics and gradients are those of one process that has the whole batch. Names and values of the
    state are those of the module it replaces.
    """

    def __init__(self, like: _BatchNorm, comm: Comm) -> None:
        super().__init__(like.num_features, like.eps, like.momentum, like.affine, like.track_running_stats)
        self._parameters, self._buffers, self.training = like._parameters, like._buffers, like.training
        self.comm = comm

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any number of places."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Maps or vectors ``(n, C, ...)`` -> the same shape."""
        if not self.training:
            return super().forward(input)
        count, mean, variance = self._statistics(input)
        with torch.no_grad():
            assert self.momentum and self.num_batches_tracked is not None  # as all of ours
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)  # type: ignore[union-attr]
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)  # type: ignore[union-attr]
        scale = self.weight * (variance + self.eps).rsqrt()
        places = (1, -1, *[1] * (input.ndim - 2))
        return torch.addcmul((self.bias - mean * scale).view(places), input, scale.view(places))

    def _statistics(self, input: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the number of values per channel, their mean (C,) and their variance (C,), over all processes.

        Means and squares of the parts are put together as by Chan, Golub and LeVeque (1979), which loses no digits.
        """
        axes = [axis for axis in range(input.ndim) if axis != 1]
        variance, mean = torch.var_mean(input, axes, correction=0)
        own = torch.full_like(mean[:1], input.numel() / input.shape[1])
        parts = self.comm.gather_with_gradient(torch.cat([own, mean, variance])[None])
        counts, means, variances = parts.split([1, len(mean), len(mean)], dim=1)
        count = counts.sum().detach()
        shares = counts.detach() / count
        whole = (shares * means).sum(0)
        return count, whole, (shares * (variances + (means - whole).square())).sum(0)


def normalise_over_all(network: nn.Module, comm: Comm) -> None:
    """Replace every BatchNorm inside ``network`` by one over the batches of all processes, where there are several."""
    if comm.world == 1:
        return
    for parent in network.modules():
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                setattr(parent, name, BatchNormOverAll(child, comm))
