"""All that is said about hardware: which device, and the processes of one fit that exchange numbers."""

from __future__ import annotations

import io
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
from torch import distributed, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from medstrata.errors import FitError, MedstrataError

T = TypeVar("T")


def choose_device(name: str) -> torch.device:
    """Return the torch device for ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.

    ``"auto"`` is the GPU where there is one, else the CPU.

    Raises
    ------
    FitError : the device is unknown or not there
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise FitError(f"Device {name!r} is not available here. Use --device cpu or --device auto.") from error
    return device


def placed(network: nn.Module, device: torch.device, dimensions: int) -> nn.Module:
    """Return ``network`` on ``device``; one of 2-D images with channels last, which is a quarter faster on CPUs."""
    network = network.to(device)
    return network if dimensions > 2 else network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def generator(*seeds: int) -> torch.Generator:
    """Return a CPU generator that is a function of the seeds alone, so that nothing has to be stored."""
    mixed = 0x9E3779B97F4A7C15
    for seed in seeds:
        mixed = (mixed ^ (int(seed) + 0x9E3779B9)) * 0x2545F4914F6CDD1D % (1 << 63)
    return torch.Generator().manual_seed(mixed)


STEP_LIMIT = timedelta(minutes=5)  # of what all processes do together: they come to it at the same time
LONE_LIMIT = timedelta(hours=12)  # of what the first process does alone while the others wait, such as a large graph


class Rows(Protocol):
    """Rows (n, ...) that can be taken by their numbers, such as a tensor."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> torch.Tensor:
        """Return the rows of a slice or of a tensor of numbers."""


@dataclass(frozen=True)
class Comm:
    """The processes that fit together; this is number ``rank`` of ``world``. One alone exchanges nothing.

    Rows of images are spread in order: each process holds its ``share`` of them. Every process must make the same calls
    in the same order.

    Raises
    ------
    FitError : in every call, where another process ended or did not answer within the limit
    """

    rank: int = 0
    world: int = 1
    patient: Any = None  # the group of processes that waits long

    def share(self, count: int) -> slice:
        """Return which of ``count`` rows are this process's."""
        return slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum of ``value`` over all processes, without gradient; it has one shape in all of them."""
        if self.world == 1:
            return value
        value = value.detach().clone(memory_format=torch.contiguous_format)
        with _answering(STEP_LIMIT):
            distributed.all_reduce(value)
        return value

    def count(self, rows: Rows) -> int:
        """Return how many rows all processes hold together; ``rows``: those of this one."""
        return len(rows) if self.world == 1 else int(self.total(torch.tensor(len(rows))))

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the rows (n, ...) of all processes, in order, without gradient."""
        if self.world == 1:
            return rows
        sizes = self._sizes(len(rows))
        padded = torch.zeros(max(sizes), *rows.shape[1:], dtype=rows.dtype, device=rows.device)
        padded[: len(rows)] = rows.detach()
        parts = [torch.empty_like(padded) for _ in sizes]
        with _answering(STEP_LIMIT):
            distributed.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def _sizes(self, own: int) -> list[int]:
        found = torch.zeros(self.world, dtype=torch.int64)
        found[self.rank] = own
        return self.total(found).tolist()

    def gather_with_gradient(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the rows (n, ...) of all processes; losses of any process have gradients in the rows of all."""
        return rows if self.world == 1 else _Gather.apply(rows, self)  # type: ignore[no-untyped-call]

    def rows(self, own: Rows, index: torch.Tensor, count: int) -> torch.Tensor:
        """Return the rows ``index`` (m,), the same in all processes, of ``count`` rows; ``own``: this one's share."""
        if self.world == 1:
            return own[index]
        first = self.share(count).start
        mine = (index >= first) & (index < first + len(own))
        here = own[index[mine] - first]
        found = here.new_zeros(len(index), *here.shape[1:])
        found[mine] = here
        return self.total(found)

    def before(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum of ``value`` over the processes before this one."""
        return torch.zeros_like(value) if self.world == 1 else self.gather(value[None])[: self.rank].sum(0)

    def any(self, here: bool) -> bool:
        """Whether it is so in any process."""
        return here if self.world == 1 else bool(self.total(torch.tensor(int(here))))

    def add_gradients(self, network: nn.Module) -> None:
        """Replace each gradient by its sum over all processes."""
        if self.world == 1:
            return
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        summed = self.total(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for gradient, part in zip(gradients, summed.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view(gradient.shape))

    def first(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns in the first process; the others wait for it. Tensors come on the CPU.

        Raises
        ------
        MedstrataError : that ``work`` raises, in all processes
        """
        if self.world == 1:
            return work()
        content = torch.empty(0, dtype=torch.uint8)
        if self.rank == 0:
            content = torch.frombuffer(bytearray(_to_bytes(_outcome(work))), dtype=torch.uint8)
        size = torch.tensor(len(content))
        with _answering(LONE_LIMIT):
            distributed.broadcast(size, 0, self.patient)
            if self.rank:
                content = torch.empty(int(size), dtype=torch.uint8)
            distributed.broadcast(content, 0, self.patient)
        outcome = _from_bytes(content)
        if isinstance(outcome, MedstrataError):
            raise outcome
        return outcome  # type: ignore[no-any-return]


ALONE = Comm()


@contextmanager
def joined() -> Iterator[Comm]:
    """Join the processes that torchrun started, where it started several; leave them at the end.

    On a machine with GPUs, each process takes the one of its number on that machine.

    Raises
    ------
    FitError : the others did not come
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield ALONE
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    try:
        store, rank, world = next(rendezvous("env://", timeout=STEP_LIMIT))
        store = PrefixStore(_meeting(store, rank, world), store)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=STEP_LIMIT)
        patient = distributed.new_group(backend="gloo", timeout=LONE_LIMIT)
    except (ValueError, RuntimeError) as error:
        raise FitError(f"The {os.environ['WORLD_SIZE']} processes did not join ({error}). Use torchrun.") from error
    try:
        yield Comm(rank, world, patient)
    finally:
        distributed.destroy_process_group()


def _meeting(store: Any, rank: int, world: int) -> str:
    """Agree with the other processes on a name under which addresses are exchanged.

    torchrun keeps one store for all restarts, and with it the addresses of processes that died (pytorch issue 135712).
    So the first names the meeting anew, and each of the others stays only where the first has seen it.
    """
    own = uuid.uuid4().hex
    if rank == 0:
        store.set("medstrata/meeting", own)
        store.set(f"{own}/guests", b" ".join(store.get(f"{own}/{other}") for other in range(1, world)))
        return own
    limit = time.monotonic() + STEP_LIMIT.total_seconds()
    while time.monotonic() < limit:
        meeting: str = store.get("medstrata/meeting").decode()
        store.set(f"{meeting}/{rank}", own)
        with suppress(RuntimeError):  # nobody leads it any more
            store.wait([f"{meeting}/guests"], timedelta(seconds=1))
            if own in store.get(f"{meeting}/guests").decode():
                return meeting
        time.sleep(0.1)
    raise RuntimeError(f"nobody answered within {STEP_LIMIT}")


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, comm: Comm) -> torch.Tensor:
        ctx.comm, ctx.size, ctx.start = comm, len(rows), int(comm.before(torch.tensor(len(rows))))
        return comm.gather(rows)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.comm.total(gradient)[ctx.start : ctx.start + ctx.size], None


@contextmanager
def _answering(limit: timedelta) -> Iterator[None]:
    """Turn what torch raises when another process is silent or gone into our error."""
    try:
        yield
    except RuntimeError as error:
        raise FitError(
            f"Another process of this fit ended, or did not answer within {limit}. The first error above says why; "
            "torchrun --max-restarts=3 starts all of them again from the last checkpoint."
        ) from error


def _outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except MedstrataError as error:
        return error


def _to_bytes(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _from_bytes(content: torch.Tensor) -> Any:
    """The bytes are of our own first process."""
    return torch.load(io.BytesIO(content.numpy().tobytes()), map_location="cpu", weights_only=False)
