"""BatchNorm over several processes; ``test_comm`` runs it in two. Here: one process, against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medstrata.learning.comm import ALONE, Comm
from medstrata.learning.norms import BatchNormOverAll, normalise_over_all


@pytest.mark.parametrize(
    ("kind", "shape"), [(nn.BatchNorm1d, (6, 3)), (nn.BatchNorm2d, (6, 3, 4, 5)), (nn.BatchNorm3d, (6, 3, 2, 4, 5))]
)
def test_equals_torchs_batch_norm_with_gradients(kind: type[nn.BatchNorm2d], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    theirs = kind(3).double()
    nn.init.uniform_(theirs.weight)
    ours = BatchNormOverAll(theirs, ALONE)
    ours.weight, ours.bias = nn.Parameter(theirs.weight.detach().clone()), nn.Parameter(theirs.bias.detach().clone())
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        setattr(ours, name, getattr(theirs, name).clone())
    images, weights = torch.randn(shape).double() * 3 + 100, torch.randn(shape).double()
    gradients = []
    for norm in (theirs, ours):
        x = images.clone().requires_grad_()
        torch.autograd.backward((norm(x) * weights).sum())
        gradients.append((x.grad, norm.weight.grad, norm.bias.grad, norm(images).detach()))
    assert all(torch.allclose(one, two, rtol=1e-9, atol=1e-9) for one, two in zip(*gradients, strict=True))
    for name, value in theirs.state_dict().items():
        assert torch.allclose(value, ours.state_dict()[name], rtol=1e-12), name
    assert torch.equal(theirs.eval()(images), BatchNormOverAll(theirs, ALONE).eval()(images))


def test_only_several_processes_need_it_and_it_keeps_the_parameters() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.BatchNorm2d(2)))
    before = dict(network.named_parameters())
    normalise_over_all(network, ALONE)
    assert isinstance(network[1][0], nn.BatchNorm2d)
    normalise_over_all(network, Comm(0, 2))
    assert isinstance(network[1][0], BatchNormOverAll)
    assert all(before[name] is parameter for name, parameter in network.named_parameters())
