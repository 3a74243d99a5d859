"""Maps that are being made: what is there already, kept so that an interrupted stage goes on where it was."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
import torch

from medstrata.errors import RunFolderError
from medstrata.evidence.maps.folder import FACTS, Findings
from medstrata.learning.checkpoints import load_state, save_state

SECONDS = 5.0  # between two savings


class Unfinished:
    """``findings`` so far and ``store``, the signed maps of the images that are shown, one after the other.

    ``token`` names what goes into the maps: of another token, or of "", nothing is taken over. ``shape``: (K, \\*grid).
    """

    def __init__(self, folder: Path, token: str, shape: tuple[int, ...]) -> None:
        self._state, self._maps, self._token = folder / ".unfinished.safetensors", folder / ".unfinished.bin", token
        empty = Findings({name: [] for name in FACTS}, np.zeros(shape, np.float32), np.zeros(shape, np.float32))
        self.findings = self._read(shape) or empty
        self._saved = time.monotonic()

    def __enter__(self) -> Self:
        self.store: IO[bytes] = open(self._maps, "r+b" if self.findings.done else "w+b")
        self.store.truncate(self._stored if self.findings.done else 0)  # what came after the last saving is made again
        self.store.seek(0, 2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.store.close()

    def save(self) -> None:
        """Keep what is there, at most every 5 seconds."""
        if not self._token or time.monotonic() - self._saved < SECONDS:
            return
        self.store.flush()
        found = self.findings
        tensors = {"sums": torch.from_numpy(found.sums), "squares": torch.from_numpy(found.squares)}
        values = {"facts": found.facts, "done": found.done, "scale": found.scale}
        save_state(self._state, tensors, {"token": self._token, "stored": self.store.tell(), **values})
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Forget it: the maps are finished."""
        self._state.unlink(missing_ok=True)
        self._maps.unlink(missing_ok=True)

    def _read(self, shape: tuple[int, ...]) -> Findings | None:
        if not self._token or not (self._state.exists() and self._maps.exists()):
            return None
        try:
            tensors, values = load_state(self._state)
        except RunFolderError:  # cut off: it is made again
            return None
        sums = tensors["sums"].numpy()
        self._stored = int(values["stored"])
        if values["token"] != self._token or sums.shape != shape or self._maps.stat().st_size < self._stored:
            return None
        facts = {name: [float(value) for value in values["facts"][name]] for name in FACTS}
        return Findings(facts, sums.copy(), tensors["squares"].numpy().copy(), values["done"], values["scale"])
