"""One fit in progress: phases of epochs, each recorded, saved and resumable. A method brings its losses."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medstrata.errors import FitError, RunFolderError
from medstrata.learning.batches import Images, blocks
from medstrata.learning.chance import BatchGenerator
from medstrata.learning.checkpoints import (
    Tensors,
    load_state,
    module_tensors,
    optimizer_tensors,
    restore_module,
    restore_optimizer,
    save_state,
)
from medstrata.learning.comm import ALONE, Comm, generator
from medstrata.learning.norms import normalise_over_all
from medstrata.learning.train import Training, batches
from medstrata.run import Progress, no_progress

Record = dict[str, Any]
SAVE_SECONDS = 1.0  # between two checkpoints of a phase: epochs of a few images take less time than writing one
STOPPED = "stopped"  # in a record: why the phase ends before its last epoch


@dataclass(frozen=True)
class Batch:
    """``x`` (n, C, ...) as the network sees it, ``index`` (n,) of these images, random numbers of this step.

    Where several processes fit together (``comm``), n images are the part of this one; ``whole``: the numbers of all
    images of the batch, None where this process has all of them.
    """

    x: torch.Tensor
    index: torch.Tensor
    generator: torch.Generator
    comm: Comm = ALONE
    whole: torch.Tensor | None = None


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
    """What a fit holds between epochs: phase, epoch, optimiser, history, and a method's own tensors.

    These are ``of_images``, tensors with one row per image, and ``kept``, all others. All of it is in the checkpoint,
    and all random numbers are a function of seed, phase, epoch and step, so that a fit that was interrupted ends as one
    that was not.

    Several processes (``comm``) fit as one would: each takes its part of every batch, gradients are summed, and each
    holds its share of ``of_images`` (``share``: the images of these rows). The first of them writes the checkpoint.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Images,
        tensor: Callable[[Images], torch.Tensor],
        training: Training,
        seed: int,
        history: list[Record],
        comm: Comm = ALONE,
    ) -> None:
        self.network, self.images, self.training, self.seed, self.comm = network, images, training, seed, comm
        if comm.world > min(len(images), training.batch_size):
            raise FitError(
                f"{comm.world} processes are too many for {len(images)} images in batches of {training.batch_size}: "
                "each needs an image of every batch. Start fewer."
            )
        normalise_over_all(network, comm)
        self.share = images[comm.share(len(images))]
        self.kept: Tensors = {}
        self.of_images: Tensors = {}
        self.history = history
        self._tensor = tensor
        self._phase, self._called, self._epoch = 0, 0, 0  # _phase: number of the running phase, from 1
        self._finished = False  # whether that phase stopped by itself
        self._saved = 0.0  # when the last checkpoint was written
        self.checkpoint: Path | None = None
        self._settings: Record = {}
        self.progress: Progress = no_progress
        self._optimizer: torch.optim.Optimizer  # made when a phase begins: some methods have nothing to train

    def keep_at(self, checkpoint: Path | None, settings: Record, progress: Progress) -> None:
        """Save to ``checkpoint`` after every epoch, at most once a second, and go on from it where it exists.

        Raises
        ------
        RunFolderError : the checkpoint is damaged, or of other ``settings`` or images
        FitError : not every process finds the same checkpoint
        """
        self.checkpoint, self.progress = checkpoint, progress
        if checkpoint is None:
            return
        self._settings = {"settings": settings, **self._fingerprint()}
        if self.comm.first(checkpoint.exists):
            self._load(checkpoint)
        state = torch.tensor([[self._phase, self._epoch, len(self.history)]])
        if len(self.comm.gather(state).unique(dim=0)) > 1:
            raise FitError("The processes do not find the same checkpoint. All must see the same folder OUT.")

    def _load(self, checkpoint: Path) -> None:
        tensors, values = load_state(checkpoint)
        if values["fingerprint"] != self._settings:
            raise RunFolderError(
                f"{checkpoint.name} was written by a fit with other settings or images. Delete it to start anew."
            )
        restore_module("network", self.network, tensors)
        self._optimizer = self._new_optimizer()
        restore_optimizer(self._optimizer, tensors)
        device = next(self.network.parameters()).device
        own = self.comm.share(len(self.images))
        self.kept = {name: tensor.to(device) for name, tensor in _named("kept.", tensors)}
        self.of_images = {name: tensor[own].to(device) for name, tensor in _named("images.", tensors)}
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
            if self._epoch == phase.epochs or self._finished or self._save_is_due():
                self._save()

    def random(self, stream: int) -> torch.Generator:
        """Return random numbers of this phase and epoch. Streams below 0 are the methods' own."""
        return generator(self.seed, self._phase, self._epoch, stream)

    def _train_epoch(self, phase: Phase) -> Record:
        self.network.train()
        chance = generator(self.seed, self._phase, self._epoch)
        order = phase.order(chance) if phase.order else torch.randperm(len(self.images), generator=chance)
        parts = list(batches(order, self.training.batch_size, self.comm.world))
        totals: dict[str, torch.Tensor] = {}
        for step, whole in enumerate(parts):
            done = (self._epoch + (step + 0.5) / len(parts)) / phase.epochs
            for group in self._optimizer.param_groups:
                group["lr"] = self.training.rate(done)
            batch = self._part(whole, step)
            losses = phase.loss(batch)
            self._optimizer.zero_grad(set_to_none=True)
            # A loss is a mean over the part's images: weighted by its share, the parts add up to that of the batch.
            torch.autograd.backward(losses["loss"] * (len(batch.index) / len(whole)))
            self.comm.add_gradients(self.network)
            self._optimizer.step()
            for name, value in losses.items():
                totals[name] = totals.get(name, torch.zeros_like(value)) + value.detach() * len(batch.index)
        return {name: float(self.comm.total(value)) / len(order) for name, value in totals.items()}

    def _part(self, whole: torch.Tensor, step: int) -> Batch:
        """Return what this process has of the batch of images ``whole`` (B,)."""
        part = self.comm.share(len(whole))
        chance = self.random(step)
        if self.comm.world > 1:
            chance = BatchGenerator.of(chance, len(whole), part)
        return Batch(self._tensor(self.images[whole[part].numpy()]), whole[part], chance, self.comm, whole)

    def rows(self, name: str, batch: Batch) -> torch.Tensor:
        """Return the rows of the tensor ``name`` in ``of_images`` for the images of ``batch``, (n, ...)."""
        own = self.of_images[name]
        index = _numbers(batch).to(own.device)
        return self.comm.rows(own, index, len(self.images))[self.comm.share(len(index))]

    def add(self, name: str, batch: Batch, values: torch.Tensor) -> None:
        """Add ``values`` (n, ...) to the rows of the tensor ``name`` in ``of_images`` for the images of ``batch``."""
        own, share = self.of_images[name], self.comm.share(len(self.images))
        index = _numbers(batch).to(own.device)
        mine = (index >= share.start) & (index < share.stop)
        own.index_add_(0, index[mine] - share.start, self.comm.gather(values)[mine])

    def _new_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            self.network.parameters(),
            lr=self.training.learning_rate,
            weight_decay=self.training.weight_decay,
            fused=True,
        )

    def _save_is_due(self) -> bool:
        return self.comm.first(lambda: time.monotonic() - self._saved >= SAVE_SECONDS)

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        self._saved = time.monotonic()
        of_images = {f"images.{name}": self.comm.gather(tensor) for name, tensor in self.of_images.items()}
        if self.comm.rank:
            return
        tensors = module_tensors("network", self.network) | optimizer_tensors(self._optimizer) | of_images
        tensors |= {f"kept.{name}": tensor for name, tensor in self.kept.items()}
        values = {"phase": self._phase, "epoch": self._epoch, "finished": self._finished, "history": self.history}
        save_state(self.checkpoint, tensors, values | {"fingerprint": self._settings})

    def _fingerprint(self) -> Record:
        """What a checkpoint must agree with beside the settings: every pixel of the images."""
        checksum = hashlib.sha256(str(self.images.dtype).encode())
        for part in blocks(self.images):
            checksum.update(np.ascontiguousarray(self.images[part]).data)
        return {"shape": list(self.images.shape), "images": checksum.hexdigest()}


def _numbers(batch: Batch) -> torch.Tensor:
    """The numbers of all images of the batch, whichever process has them."""
    return batch.index if batch.whole is None else batch.whole


def _named(prefix: str, tensors: Tensors) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            yield name.removeprefix(prefix), tensor
