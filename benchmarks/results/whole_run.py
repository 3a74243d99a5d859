"""An archive of DICOM files through ``medstrata run``: its clusters, and the wrong headers that it lists."""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.results.archive import balanced_counts, geometric_counts, write_archive
from medstrata.evidence.metrics import score
from medstrata.images.planning import PlanOptions
from medstrata.pipeline.job import Job
from medstrata.pipeline.runner import run_pipeline
from medstrata.run import RunFolder


@dataclass(frozen=True)
class Archive:
    """A written archive: the true kind of each file, its number among the pictures of its kind, files made wrong."""

    source: Path
    out: Path
    kinds: dict[str, str]
    numbers: dict[str, int]
    falsified: set[str]

    @property
    def options(self) -> PlanOptions:
        """What the user would ask for: as many clusters as there are kinds, ultrasound included."""
        return PlanOptions(goal="categories", n_clusters=len(set(self.kinds.values())), include_burned_in=True)

    def job(self) -> Job:
        """Return a job for single stages of the run."""
        return Job(RunFolder(self.out), self.options)

    def files(self, image_ids: Sequence[str]) -> list[str]:
        """Return the file of each image."""
        rows = pq.read_table(self.out / "private" / "sources.parquet", columns=["image_id", "file"]).to_pylist()
        file_of = {row["image_id"]: row["file"] for row in rows}
        return [file_of[image_id] for image_id in image_ids]


def archived(folder: Path, data: Path, balanced: bool, seed: int) -> Archive:
    """Write an archive, balanced or at 1:2:4:8:..., into ``folder``."""
    counts = balanced_counts() if balanced else geometric_counts(seed)
    write_archive(folder / "archive", folder / "truth.csv", data, counts, seed)
    with open(folder / "truth.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    falsified = {row["file"] for row in rows if row["falsified"]}
    kinds, numbers = ({row["file"]: row[name] for row in rows} for name in ("label", "number"))
    places = {file: int(number) for file, number in numbers.items()}
    return Archive(folder / "archive", folder / "out", kinds, places, falsified)


def whole_run(data: Path, balanced: bool, seed: int) -> dict[str, Any]:
    """Run the pipeline on an archive of the sets in ``data`` and score what stands in the run folder."""
    with tempfile.TemporaryDirectory() as temporary:
        written = archived(Path(temporary), data, balanced, seed)
        started = time.process_time()
        options = PlanOptions(**{**vars(written.options), "seed": seed})
        run_pipeline(written.source, written.out, options=options, workers=1)
        seconds = time.process_time() - started
        table = pq.read_table(written.out / "assignments.parquet")
        doubted = pq.read_table(written.out / "contradictions.parquet")["image_id"].to_pylist()
        kinds = [written.kinds[name] for name in written.files(table["image_id"].to_pylist())]
        listed = list(dict.fromkeys(written.files(doubted)))
    right = [name in written.falsified for name in listed]
    most = len(written.falsified)
    return {
        "images": len(kinds),
        "classes": len(set(kinds)),
        "cpu_seconds": seconds,
        "scores": {"graph": dict(score(kinds, np.asarray(table["nearest"])))},
        "contradictions": {
            "falsified": most,
            "listed": len(listed),
            "precision": float(np.mean(right)) if right else float("nan"),
            "precision of the first": float(np.mean(right[:most])) if right else float("nan"),
            "recall": sum(right) / max(most, 1),
        },
    }
