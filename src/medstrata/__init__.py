"""medstrata turns unlabelled medical images into named, explained and tested clusters. Research use only.

    from medstrata import Fusion, cluster_activation_map, load_images

Names are imported when they are first used, so that ``import medstrata`` is quick and loads no torch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from medstrata._version import __version__

# Read by OpenMP when torch loads it, so it must stand before any import of torch: idle threads sleep instead of
# spinning, which on a busy machine costs many times the processor time for nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from medstrata.errors import MedstrataError
    from medstrata.evidence.maps.activation import cluster_activation_map
    from medstrata.evidence.maps.clam import Clam
    from medstrata.evidence.maps.feature_gradients import FeatureGradients
    from medstrata.evidence.maps.integrated_gradients import IntegratedGradients
    from medstrata.evidence.metrics import score
    from medstrata.images.store import load_images
    from medstrata.learning.train import Training
    from medstrata.methods.contrastive import ContrastiveAutoencoder
    from medstrata.methods.dcec import DCEC
    from medstrata.methods.deepmcat import DeepMCAT
    from medstrata.methods.dvc import DVC
    from medstrata.methods.files import load
    from medstrata.methods.frozen import FrozenFeatures
    from medstrata.methods.fusion import Fusion
    from medstrata.pipeline.runner import run_pipeline
    from medstrata.simulation.study import simulate_study

_HOME = {
    "Clam": "medstrata.evidence.maps.clam",
    "FeatureGradients": "medstrata.evidence.maps.feature_gradients",
    "IntegratedGradients": "medstrata.evidence.maps.integrated_gradients",
    "ContrastiveAutoencoder": "medstrata.methods.contrastive",
    "DCEC": "medstrata.methods.dcec",
    "DVC": "medstrata.methods.dvc",
    "DeepMCAT": "medstrata.methods.deepmcat",
    "FrozenFeatures": "medstrata.methods.frozen",
    "Fusion": "medstrata.methods.fusion",
    "MedstrataError": "medstrata.errors",
    "Training": "medstrata.learning.train",
    "cluster_activation_map": "medstrata.evidence.maps.activation",
    "load": "medstrata.methods.files",
    "load_images": "medstrata.images.store",
    "run_pipeline": "medstrata.pipeline.runner",
    "score": "medstrata.evidence.metrics",
    "simulate_study": "medstrata.simulation.study",
}

__all__ = [
    "DCEC",
    "DVC",
    "Clam",
    "ContrastiveAutoencoder",
    "DeepMCAT",
    "FeatureGradients",
    "FrozenFeatures",
    "Fusion",
    "IntegratedGradients",
    "MedstrataError",
    "Training",
    "__version__",
    "cluster_activation_map",
    "load",
    "load_images",
    "run_pipeline",
    "score",
    "simulate_study",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'medstrata' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
