"""The loop of epochs: phases in order, records, early stops, what a checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medstrata.errors import RunFolderError
from medstrata.learning.fitting import STOPPED, Batch, Fit, Phase
from medstrata.learning.train import Training

IMAGES = np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1)


def fit(history: list[dict[str, Any]] | None = None) -> Fit:
    network = nn.Linear(1, 1)
    nn.init.ones_(network.weight)
    training = Training(batch_size=4, learning_rate=0.1)
    return Fit(network, IMAGES, torch.from_numpy, training, 0, [] if history is None else history)


def test_every_image_is_seen_once_an_epoch_and_losses_are_means_over_images() -> None:
    one, seen = fit(), []

    def loss(batch: Batch) -> dict[str, torch.Tensor]:
        assert torch.equal(batch.x.flatten(), batch.index.float())
        seen.extend(batch.index.tolist())
        return {"loss": one.network.weight.sum() * 0, "index": batch.index.double().mean()}

    one.run(Phase("only", 2, loss))
    assert sorted(seen) == sorted([*range(10), *range(10)]) and seen[:10] != seen[10:]
    assert [record["index"] for record in one.history] == pytest.approx([4.5, 4.5])
    assert [record["phase"] for record in one.history] == ["only", "only"]


def test_phases_in_order_start_once_and_may_stop() -> None:
    one, calls = fit(), []

    def loss(batch: Batch) -> dict[str, torch.Tensor]:
        return {"loss": one.network(batch.x.flatten(1)).square().mean()}

    def refresh(epoch: int) -> dict[str, Any]:
        calls.append(epoch)
        return {"change": 0.5} if epoch < 2 else {STOPPED: "settled"}

    one.run(Phase("first", 1, loss))
    one.run(Phase("second", 9, loss, lambda: calls.append(-1), refresh))
    assert calls == [-1, 0, 1, 2]
    assert one.history[-1] == {"phase": "second", "epoch": 2, "stopped": "settled"}
    assert one.history[-2]["change"] == 0.5 and "loss" in one.history[-2]


def test_order_of_a_phase_is_its_own() -> None:
    one, seen = fit(), []

    def loss(batch: Batch) -> dict[str, torch.Tensor]:
        seen.extend(batch.index.tolist())
        return {"loss": one.network.weight.sum()}

    one.run(Phase("only", 1, loss, order=lambda chance: torch.tensor([3, 3, 3])))
    assert seen == [3, 3, 3]


def test_checkpoint_of_other_images_is_refused(tmp_path: Path) -> None:
    one, file = fit(), tmp_path / "c.safetensors"
    one.keep_at(file, {"a": 1}, lambda *_: None)
    one.run(Phase("only", 1, lambda batch: {"loss": one.network.weight.sum()}))
    same = fit()
    same.keep_at(file, {"a": 1}, lambda *_: None)
    assert torch.equal(same.network.weight, one.network.weight) and same.history == one.history
    other = fit()
    other.images = IMAGES + 1
    for changed, settings in ((other, {"a": 1}), (fit(), {"a": 2})):
        with pytest.raises(RunFolderError, match="other settings or images"):
            changed.keep_at(file, settings, lambda *_: None)
