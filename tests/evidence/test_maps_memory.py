"""Maps of volumes of 128 voxels a side with 64 channels stay inside 4 GB."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource
import numpy as np
import torch
from torch import nn
from medstrata.evidence.maps.activation import cluster_activation_map
from medstrata.evidence.maps.{module} import {rule}

class Model:
    background = 0.0
    def __init__(self):
        steps = [nn.Conv3d(a, b, 4, 2, 1) for a, b in ((1, 16), (16, 32), (32, 64))]
        self.encoder = nn.Sequential(steps[0], nn.LeakyReLU(), steps[1], nn.LeakyReLU(), steps[2], nn.LeakyReLU())
        self.encoder.requires_grad_(False)
    def tensor(self, block):
        return torch.from_numpy(block.astype(np.float32))
    def feature_maps(self, x):
        return self.encoder(x)
    def differentiable_assignment(self, x, of_features=False):
        return torch.softmax((x if of_features else self.encoder(x)).flatten(2).mean(2)[:, :3], 1)
    def soft_assignment(self, x):
        with torch.no_grad():
            return self.differentiable_assignment(x)

volumes = np.random.default_rng(0).normal(size=(8, 1, 128, 128, 128)).astype(np.float32)
found = cluster_activation_map(Model(), volumes, {rule}({settings}), cohort=volumes)
assert found.maps.shape == (8, 128, 128, 128) and np.isfinite(found.maps).all()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("module", "rule", "settings"),
    [
        ("integrated_gradients", "IntegratedGradients", ""),
        ("feature_gradients", "FeatureGradients", ""),
        ("clam", "Clam", "groups=8"),
    ],
)
def test_peak_memory(module: str, rule: str, settings: str) -> None:
    script = SCRIPT.format(module=module, rule=rule, settings=settings)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    megabytes = int(ended.stdout.split()[-1])
    print(f"{rule}: {megabytes} MB")
    assert megabytes < 4096
