"""Run the command line in this process and keep what it says; small inputs to run it on."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medstrata.cli import main


@dataclass(frozen=True)
class Answer:
    """Exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The last line of standard error: what the user reads when something is wrong."""
        return self.err.strip().splitlines()[-1]


def medstrata(*arguments: object) -> Answer:
    """Run ``medstrata ARGUMENTS``."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            code = int(leaving.code or 0)
    return Answer(code, out.getvalue(), err.getvalue())


def images(count: int = 18, groups: int = 3, side: int = 16) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, H, W) of groups that differ in the place of a bright bar, and the groups."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % groups
    found = generator.normal(60, 6, (count, side, side))
    for image, group in zip(found, labels, strict=True):
        image[1 + 5 * group : 5 + 5 * group, 2:14] += 120
    return found.clip(0, 255).astype(np.uint8), labels


def write_array(folder: Path, count: int = 18) -> Path:
    """Write ``images.npz`` with the keys images and labels."""
    folder.mkdir(parents=True, exist_ok=True)
    found, labels = images(count)
    np.savez(folder / "images.npz", images=found, labels=labels)
    return folder / "images.npz"
