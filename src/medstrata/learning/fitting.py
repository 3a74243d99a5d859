"""One fit in progress: phases of epochs, each recorded, saved and resumable. A method brings its losses."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medstrata.errors import RunFolderError
from medstrata.learning.batches import Images
from medstrata.learning.checkpoints import (
    Tensors,
    load_state,
    module_tensors,
    optimizer_tensors,
    restore_module,
    restore_optimizer,
    save_state,
)
from medstrata.learning.comm import generator
from medstrata.learning.train import Training, batches
from medstrata.run import Progress

Record = dict[str, Any]
SAVE_SECONDS = 1.0  # between two checkpoints of a phase: epochs of a few images take less time than writing one
STOPPED = "stopped"  # in a record: why the phase ends before its last epoch


@dataclass(frozen=True)
class Batch:
    """``x`` (n, C, ...) as the network sees it, ``index`` (n,) of these images, random numbers of this step."""

    x: torch.Tensor
    index: torch.Tensor
    generator: torch.Generator


Loss = Callable[[Batch], Tensors]  # named scalars; "loss" is the one that is minimised


@dataclass(frozen=True)
class Phase:
    """``epochs`` passes over the images on ``loss``.

    ``start`` is done once, before the first epoch. ``refresh`` is done before each epoch, knows the epoch's number, and
    returns what to record; a record with ``STOPPED`` ends the phase. ``order`` gives the images of an epoch (default:
    all, in random order).
    """

    name: str
    epochs: int
    loss: Loss
    start: Callable[[], None] | None = None
    refresh: Callable[[int], Record] | None = None
    order: Callable[[torch.Generator], torch.Tensor] | None = None


class Fit:
    """What a fit holds between epochs: phase, epoch, optimiser, history, and ``kept``: a method's own tensors.

    All of it is in the checkpoint, and all random numbers are a function of seed, phase, epoch and step, so that a fit
    that was interrupted ends as one that was not.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Images,
        tensor: Callable[[Images], torch.Tensor],
        training: Training,
        seed: int,
        history: list[Record],
    ) -> None:
        self.network, self.images, self.training, self.seed = network, images, training, seed
        self.kept: Tensors = {}
        self.history = history
        self._tensor = tensor
        self._phase, self._called, self._epoch = 0, 0, 0  # _phase: number of the running phase, from 1
        self._finished = False  # whether that phase stopped by itself
        self._saved = 0.0  # when the last checkpoint was written
        self.checkpoint: Path | None = None
        self._settings: Record = {}
        self.progress: Progress = lambda *_: None
        self._optimizer: torch.optim.Optimizer  # made when a phase begins: some methods have nothing to train

    def keep_at(self, checkpoint: Path | None, settings: Record, progress: Progress) -> None:
        """Save to ``checkpoint`` after every epoch, at most once a second, and go on from it where it exists.

        Raises
        ------
        RunFolderError : the checkpoint is damaged, or of other ``settings`` or images
        """
        self.checkpoint, self.progress = checkpoint, progress
        self._settings = {"settings": settings, **self._fingerprint()}
        if checkpoint is None or not checkpoint.exists():
            return
        tensors, values = load_state(checkpoint)
        if values["fingerprint"] != self._settings:
            raise RunFolderError(
                f"{checkpoint.name} was written by a fit with other settings or images. Delete it to start anew."
            )
        restore_module("network", self.network, tensors)
        self._optimizer = self._new_optimizer()
        restore_optimizer(self._optimizer, tensors)
        device = next(self.network.parameters()).device
        self.kept = {
            name.removeprefix("kept."): tensor.to(device)
            for name, tensor in tensors.items()
            if name.startswith("kept.")
        }
        self._phase, self._epoch, self._finished = values["phase"], values["epoch"], values["finished"]
        self.history[:] = values["history"]

    def run(self, phase: Phase) -> None:
        """Train through ``phase``, or what is left of it. The n-th call is the n-th phase of the fit."""
        self._called += 1
        if self._called < self._phase or (self._called == self._phase and self._finished):
            return
        if self._called > self._phase:
            if phase.start:
                phase.start()
            self._optimizer = self._new_optimizer()  # after start: it may have changed the number of prototypes
            self._phase, self._epoch, self._finished = self._called, 0, False
        while self._epoch < phase.epochs and not self._finished:
            record = phase.refresh(self._epoch) if phase.refresh else {}
            self._finished = STOPPED in record
            if not self._finished:
                record |= self._train_epoch(phase)
            self.history.append({"phase": phase.name, "epoch": self._epoch, **record})
            self._epoch += 1
            self.progress(f"{phase.name} epochs", self._epoch, phase.epochs)
            if self._epoch == phase.epochs or self._finished or time.monotonic() - self._saved >= SAVE_SECONDS:
                self._save()

    def random(self, stream: int) -> torch.Generator:
        """Return random numbers of this phase and epoch. Streams below 0 are the methods' own."""
        return generator(self.seed, self._phase, self._epoch, stream)

    def _train_epoch(self, phase: Phase) -> Record:
        self.network.train()
        chance = generator(self.seed, self._phase, self._epoch)
        order = phase.order(chance) if phase.order else torch.randperm(len(self.images), generator=chance)
        parts = list(batches(order, self.training.batch_size))
        totals: dict[str, torch.Tensor] = {}
        for step, index in enumerate(parts):
            done = (self._epoch + (step + 0.5) / len(parts)) / phase.epochs
            for group in self._optimizer.param_groups:
                group["lr"] = self.training.rate(done)
            losses = phase.loss(Batch(self._tensor(self.images[index.numpy()]), index, self.random(step)))
            self._optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(losses["loss"])
            self._optimizer.step()
            for name, value in losses.items():
                totals[name] = totals.get(name, torch.zeros_like(value)) + value.detach() * len(index)
        return {name: float(value) / len(order) for name, value in totals.items()}

    def _new_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            self.network.parameters(),
            lr=self.training.learning_rate,
            weight_decay=self.training.weight_decay,
            fused=True,
        )

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        self._saved = time.monotonic()
        tensors = module_tensors("network", self.network) | optimizer_tensors(self._optimizer)
        tensors |= {f"kept.{name}": tensor for name, tensor in self.kept.items()}
        values = {"phase": self._phase, "epoch": self._epoch, "finished": self._finished, "history": self.history}
        save_state(self.checkpoint, tensors, values | {"fingerprint": self._settings})

    def _fingerprint(self) -> Record:
        """What a checkpoint must agree with beside the settings: the images, by a sample of them."""
        some = np.ascontiguousarray(self.images[:: max(1, len(self.images) // 16)])
        return {"shape": list(self.images.shape), "images": hashlib.sha256(some.tobytes()).hexdigest()}
