"""Ray as the one who does the work: processes on one machine or on many (the extra ``ray``).

Whoever reaches the ports of a Ray cluster can run programs on it, and Ray listens on every network of a machine. A
cluster that is started here therefore asks for a secret token; one that is named by its address is its owner's to
protect.
"""

from __future__ import annotations

import importlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from types import ModuleType, TracebackType
from typing import Any, Self

from medstrata.errors import InputError, RunFolderError
from medstrata.images.workers import AHEAD, Executor, Processes

LOCAL = "local"
RETRIES = 3  # of a shard whose worker or node was lost
REACH_SECONDS = 10.0  # for a machine to accept a connection
ANSWER_SECONDS = 30.0  # for Ray to answer there
ADDRESSES = "an address HOST:PORT, or auto for a cluster that this machine belongs to"


class OnRay:
    """A Ray cluster: the one at ``address`` (HOST:PORT, ray://HOST:PORT, auto), else one of this machine alone.

    Without an address that of the environment variable RAY_ADDRESS is taken. Ray is reached when there is work.

    Raises
    ------
    InputError : Ray is not installed, or none answers at the address
    """

    elsewhere = True

    def __init__(self, workers: int, address: str | None = None) -> None:
        self._address = address or os.environ.get("RAY_ADDRESS") or LOCAL
        if self._address == LOCAL:
            _protect()
        self._ray = _ray()
        self._workers = workers
        self._folder: str | None = None
        self._submit: Any = None
        self._references: dict[Future[Any], Any] = {}  # of the tasks that Ray has
        if self._address != LOCAL:
            _check_address(self._address)

    @property
    def died(self) -> tuple[type[BaseException], ...]:
        """What a future raises that was given up, or whose worker or node was lost more often than it is retried."""
        errors = self._ray.exceptions
        lost = errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError, errors.ObjectLostError
        return *lost, errors.TaskCancelledError

    @property
    def width(self) -> int:
        """How many tasks are handed out at once: in proportion to the processors that the cluster has now."""
        return AHEAD * max(1, int(self._ray.cluster_resources().get("CPU", 1))) if self._submit else 1

    def __enter__(self) -> Self:
        if self._submit is None:
            self._connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stay connected: the next stage goes on with the same cluster."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run it on one processor of the cluster."""
        future: Future[Any] = Future()
        self._references[future] = reference = self._submit.remote(function, *arguments)
        reference.future().add_done_callback(lambda found: self._pass_on(found, future))
        return future

    def _pass_on(self, found: Future[Any], future: Future[Any]) -> None:
        """Hand on what a task of Ray gave; say in words where a machine cannot do it at all."""
        self._references.pop(future, None)
        error = found.exception()
        if error is None:
            future.set_result(found.result())
        elif isinstance(error, self._ray.exceptions.LocalRayletDiedError):
            future.set_exception(
                RunFolderError(
                    "Ray has ended on this machine. Start it again (ray start), then run the same command again; it "
                    "goes on where it stopped."
                )
            )
        elif "No module named" in str(error):
            future.set_exception(
                RunFolderError(
                    "A machine of the Ray cluster lacks a module that the work needs. Install the same medstrata, with "
                    "the same Python, on all of them."
                )
            )
        else:
            future.set_exception(error)

    def alone(self) -> Executor:
        """Return a process of this machine, which can be ended for certain when it comes to no end."""
        return Processes(1)

    def state(self) -> str:
        """Say how many processors there are and how many are free."""
        free, of = self._processors()
        return f"Ray has {of:.0f} processors, {free:.0f} of them free"

    def _processors(self) -> tuple[float, float]:
        """How many are free, of how many."""
        free, of = self._ray.available_resources(), self._ray.cluster_resources()
        return free.get("CPU", 0.0), of.get("CPU", 0.0)

    def give_up(self) -> None:
        """Cancel all tasks. RunFolderError: none of them runs, so that they are not what the cluster waits for."""
        free, of = self._processors()
        if free == of:
            raise RunFolderError(
                f"Ray has finished nothing for a long time ({self.state()}). Look at the cluster (ray status), and run "
                "the same command again; it goes on where it stopped."
            )
        for reference in list(self._references.values()):
            self._ray.cancel(reference, force=True)

    def close(self) -> None:
        """Leave the cluster, or end the one that was started here."""
        if self._submit is not None:
            self._ray.shutdown()
            self._submit = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _connect(self) -> None:
        options: dict[str, Any] = {"address": self._address}
        if self._address == LOCAL:
            self._folder = tempfile.mkdtemp(prefix="medstrata-ray-")  # short: it holds sockets, whose names are limited
            options |= {"num_cpus": self._workers, "include_dashboard": False, "_temp_dir": self._folder}
            options |= {"_node_ip_address": "127.0.0.1"}
        try:
            self._ray.init(logging_level="ERROR", log_to_driver=False, **options)
        except (OSError, RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            if self._address == LOCAL:
                raise RunFolderError(
                    f"Ray does not start on this machine ({type(error).__name__}). "
                    "Without it processes do the same work: --executor processes"
                ) from error
            raise _no_answer(self._address, type(error).__name__) from error
        self._submit = self._ray.remote(_run).options(num_cpus=1, max_retries=RETRIES)


def _run(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _protect() -> None:
    """Have the cluster that is started here ask for a token that only this process and its children know."""
    if "RAY_AUTH_MODE" not in os.environ:
        if "ray" in sys.modules:  # which has read the variable by now
            raise InputError(
                "Ray was imported before medstrata could have it ask for a token. Import it later, or set "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN before it is imported."
            )
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _ray() -> ModuleType:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before it is imported: nothing is sent to anybody
    try:
        importlib.import_module("ray.exceptions")
    except ImportError:
        raise InputError(
            "--executor ray needs Ray, which is not installed. Install it with: pip install 'medstrata[ray]'. "
            "Without it processes do the same work: --executor processes"
        ) from None
    return importlib.import_module("ray")


def _check_address(address: str) -> None:
    """Ask at the address, with limits: Ray itself waits for minutes, and ends the whole process when nobody answers."""
    if address != "auto":
        _reach(address)
    if address.startswith("ray://"):
        return
    given = [] if address == "auto" else ["--address", address]
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", *given]
    try:
        answered = subprocess.run(command, capture_output=True, timeout=ANSWER_SECONDS, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        answered = False
    if not answered:
        why = "no cluster runs on this machine" if address == "auto" else "what listens there is no Ray cluster"
        raise _no_answer(address, f"{why} of this version of Ray")


def _reach(address: str) -> None:
    """Raise InputError where ``address`` is none, or accepts no connection."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (host and colon and port.isdigit()):
        raise InputError(f"--address {address} is no address of a Ray cluster. Give {ADDRESSES}.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise _no_answer(address, getattr(error, "strerror", None) or str(error) or type(error).__name__) from error


def _no_answer(address: str, why: str) -> InputError:
    return InputError(
        f"No Ray cluster answers at {address} ({why}). Check the address with `ray status --address {address}`, "
        "or leave --address out to use this machine alone."
    )
