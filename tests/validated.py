"""A finished run of a tiny array, read by k-means on principal components: a fit takes a few hundredths of a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from command_line import medstrata
from medstrata.pipeline.job import Job
from medstrata.pipeline.refits import FOLDER
from medstrata.pipeline.runner import validate_run
from medstrata.pipeline.validation_settings import ValidationSettings
from medstrata.run import RunFolder


def finished_run(folder: Path, pixels: NDArray[Any], clusters: int = 3) -> Path:
    """Cluster images (N, H, W) in ``folder/out`` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "images.npz", images=pixels)
    return finish(folder / "images.npz", folder / "out", clusters)


def finish(source: Path, out: Path, clusters: int = 3) -> Path:
    """Do everything with an input, by k-means on its principal components."""
    assert medstrata("scan", source, out).code == 0
    assert medstrata("plan", out, "--clusters", clusters, "--method", "pca").code == 0
    edit_plan(out, settings={"assignment": "kmeans", "components": 5})
    answer = medstrata("run", source, out)
    assert answer.code == 0, answer.err
    return out


def edit_plan(out: Path, **values: Any) -> None:
    """Change keys of plan.json as a person would."""
    plan = json.loads((out / "plan.json").read_text())
    (out / "plan.json").write_text(json.dumps(plan | values))


def validated(out: Path, refits: int = 3, surrogates: int = 0, **settings: Any) -> dict[str, Any]:
    """Validate a run and return validation.json."""
    validate_run(Job(RunFolder(out), device="cpu"), ValidationSettings(refits, surrogates, **settings))
    result: dict[str, Any] = json.loads((out / "validation.json").read_text())
    return result


def kept(out: Path) -> dict[str, bytes]:
    """Every file of OUT/validation by its name."""
    return {path.name: path.read_bytes() for path in sorted((out / FOLDER).iterdir())}
