"""References that see labels: how far clustering is from learning with a teacher. In ``benchmarks/`` only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from benchmarks.results.sets import Images
from medstrata.learning.augment import AUGMENTATIONS, augment
from medstrata.learning.batches import measure
from medstrata.learning.comm import generator
from medstrata.learning.nets import initialise
from medstrata.learning.resnet import ResNet
from medstrata.learning.train import batches
from medstrata.methods.deepmcat import DeepMCAT

STEPS = 600
BATCH = {2: 128, 3: 16}  # images by their dimensions: 600 batches of 128 volumes are too many for a cell's minutes

Scores = dict[str, dict[str, float]]


def probe(transform: Callable[[Any], NDArray[Any]], training: Images, rest: Images) -> dict[str, float]:
    """Logistic regression on a frozen embedding: learned on the training part, scored on the rest."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    model.fit(transform(training.images), training.labels)
    return _scored(rest.labels, model.predict(transform(rest.images)))


def scores(images: Images, seed: int) -> Scores:
    """Train DeepMCAT's encoder with labels on the training part, with the same augmentation; score the rest."""
    training, rest = images.split(seed)
    torch.manual_seed(seed)
    preprocessing = measure(training.images, "scaled")
    network: Any = nn.Sequential(
        ResNet(training.images.shape[1:], widths := DeepMCAT().architecture.widths),
        nn.Linear(widths[-1], int(images.labels.max()) + 1),
    )
    initialise(network, generator(seed), "he")
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    labels, step = torch.from_numpy(training.labels), 0
    while step < STEPS:
        order = torch.randperm(len(labels), generator=generator(seed, step))
        for index in batches(order, BATCH[images.images.ndim - 2]):
            x = preprocessing(training.images[index.numpy()], torch.device("cpu"))
            x = augment(x, AUGMENTATIONS[images.augmentation], generator(seed, step, 1))
            loss = nn.functional.cross_entropy(network(x), labels[index])
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            if step < STEPS:
                schedule.step()
            step += 1
    network.eval()
    with torch.no_grad():
        parts = np.array_split(np.arange(len(rest.labels)), max(1, len(rest.labels) // 256))
        found = [network(preprocessing(rest.images[part], torch.device("cpu"))).argmax(1) for part in parts]
    return {"named": _scored(rest.labels, torch.cat(found).numpy())}


def _scored(labels: NDArray[Any], predicted: NDArray[Any]) -> dict[str, float]:
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "balanced_accuracy": float(balanced_accuracy_score(labels, predicted)),
    }
