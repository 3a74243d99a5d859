"""Compare two finished runs: ``medstrata compare`` writes a folder with numbers, a figure, a table and a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medstrata.decisions import model_checksum
from medstrata.errors import RunFolderError
from medstrata.evidence.comparison import Comparison, compare_labels
from medstrata.images.plan import Plan
from medstrata.pipeline.adjusting import FILE as ADJUSTMENT
from medstrata.pipeline.export import check_outside
from medstrata.pipeline.inputs import input_of
from medstrata.pipeline.joining import BY_ID, Joined, join_images
from medstrata.report.flow import flow_figure
from medstrata.report.folder import read_run_folder
from medstrata.report.runs_compared import render_comparison
from medstrata.run import RunFolder, atomic, read_json, write_json, write_table

FOLDER = "comparison"
NUMBERS, FIGURE, TABLE, PAGE = "compare.json", "flow.svg", "moved.parquet", "comparison.html"
OLDER: dict[str, Any] = {"adjust_for": [], "fit_images": Plan.fit_images}  # keys that plans of earlier versions lack
NO_SETTING = ("reasons", "version")  # keys of plan.json that set nothing


def compare_runs(first: Path, second: Path, target: Path | None = None, say: Callable[[str], None] = print) -> Path:
    """Compare the clusters of run folder ``second`` with those of ``first``; return the page.

    Writes ``compare.json``, ``flow.svg``, ``moved.parquet`` and ``comparison.html`` into ``target``
    (``second/comparison``). Images have the ids of the second run there, so that nothing ties the ids of two runs
    together. Compared are the clusters of the models, whatever people decided about them.

    Raises
    ------
    RunFolderError : a run is not finished, both are the same, or they have no image in common; ``target`` holds
        something else or cannot be written
    """
    _check(first, second, target)
    joined = join_images(first, second)
    tables = [pq.read_table(out / "assignments.parquet") for out in (first, second)]
    rows = [table.take(places) for table, places in zip(tables, (joined.first, joined.second), strict=True)]
    compared = compare_labels(*(each["cluster"].to_numpy().astype(np.int64) for each in rows))
    images = _images(rows, compared)
    numbers = _numbers((first, second), (len(tables[0]), len(tables[1])), joined, compared)
    numbers["judged"] = _judged(numbers)
    run = read_run_folder(second)
    flow = flow_figure(compared)
    folder = target or second / FOLDER
    with RunFolder(second).locked():
        write_table(folder / TABLE, images)
        for name, content in ((FIGURE, flow), (PAGE, render_comparison(run, numbers, images, flow).encode())):
            with atomic(folder / name) as part:
                part.write_bytes(content)
        write_json(folder / NUMBERS, numbers)
    say(f"compare: {numbers['shared']} images joined by {joined.by}")
    for sentence in (*numbers["cautions"], *numbers["judged"]):
        say(f"compare: {sentence}")
    say(f"compare: adjusted Rand index {compared.ari:.2f}; {numbers['moved']} images moved")
    return folder / PAGE


def _check(first: Path, second: Path, target: Path | None) -> None:
    for name, out in (("OUT1", first), ("OUT2", second)):
        if not all((out / file).exists() for file in ("assignments.parquet", "plan.json", "model.safetensors")):
            raise RunFolderError(f"{name} ({out}) holds no finished run. Run: medstrata run INPUT OUT")
    if first.resolve() == second.resolve():
        raise RunFolderError("OUT1 and OUT2 are the same folder. Give two runs.")
    if target is None or target.resolve() == (second / FOLDER).resolve():
        return
    for out in (first, second):
        check_outside(target, out, input_of(RunFolder(out)))
    empty = not target.exists() or (target.is_dir() and not any(target.iterdir()))
    if not empty and not (target / NUMBERS).exists():
        raise RunFolderError(f"{target} is not empty and holds no comparison. Name a folder that does not exist.")


def _images(rows: list[pa.Table], compared: Comparison) -> pa.Table:
    """One row per image of both runs, with the ids of the second."""
    columns = {"image_id": rows[1]["image_id"]}
    for name, table in zip(("first", "second"), rows, strict=True):
        columns |= {f"{name}_cluster": table["cluster"], f"{name}_probability": table["probability"]}
    return pa.table(columns | {"moved": pa.array(compared.moved)})


def _numbers(
    folders: tuple[Path, Path], sizes: tuple[int, int], joined: Joined, compared: Comparison
) -> dict[str, Any]:
    shared = len(joined.first)
    runs = [_described(out, size - shared) for out, size in zip(folders, sizes, strict=True)]
    runs[0]["unmatched"], runs[1]["unmatched"] = compared.first_alone, compared.second_alone
    return {
        "first": runs[0],
        "second": runs[1],
        "joined_by": joined.by,
        "shared": shared,
        "ambiguous": joined.ambiguous,
        "ari": compared.ari,
        "ami": compared.ami,
        "moved": int(compared.moved.sum()),
        "moved_share": float(compared.moved.mean()),
        "pairs": [asdict(pair) for pair in compared.pairs],
        "table": {
            "first": compared.first_numbers,
            "second": compared.second_numbers,
            "counts": compared.counts.tolist(),
        },
        "plan": plan_changes(*(read_json(out / "plan.json") for out in folders)),
        "cautions": _cautions(folders, joined),
    }


def _described(out: Path, alone: int) -> dict[str, Any]:
    plan, stages = read_json(out / "plan.json"), RunFolder(out).state()["stages"]
    finished = str(stages.get("assign", {}).get("finished", ""))[:10]
    described = {key: plan.get(key) for key in ("method", "seed", "n_clusters")}
    described |= {"finished": finished, "model": model_checksum(out), "alone": alone}
    return described | {"validity": _validity(out), "adjusted": _adjusted(out)}


def _validity(out: Path) -> str:
    """Return the verdict on the clusters of a run, "not validated" where ``medstrata validate`` was not run on it."""
    found = read_json(out / "validation.json") if (out / "validation.json").exists() else {"provisional": True}
    if found["provisional"]:
        return "not validated"
    return str(found.get("verdict") or ("supported" if found["supported"] else "not supported"))


def _adjusted(out: Path) -> dict[str, Any] | None:
    """Return what a run adjusts for, with Cramér's V of batches and clusters before and after; None: for nothing."""
    facts = read_json(out / ADJUSTMENT) if (out / ADJUSTMENT).exists() else {}
    return {key: facts[key] for key in ("columns", "before", "after")} if "after" in facts else None


def _judged(numbers: dict[str, Any]) -> list[str]:
    """Say of each run whether its clusters are supported, and what adjusting came to."""
    said = []
    for which in ("first", "second"):
        run = numbers[which]
        sentence = f"The clusters of the {which} run are {run['validity']}."
        if adjusted := run["adjusted"]:
            sentence += (
                f" It adjusts for {' and '.join(adjusted['columns'])}: Cramér's V of batches and clusters is "
                f"{adjusted['before']:.2f} before and {adjusted['after']:.2f} after."
            )
        said.append(sentence)
    return said


def _cautions(folders: tuple[Path, Path], joined: Joined) -> list[str]:
    places = {input_of(RunFolder(out)) for out in folders} - {None}
    if joined.by == BY_ID and len(places) > 1:
        return [
            "The runs are of different INPUTs. They share image_ids where a file has the same name in both; whether it "
            "is the same image, the ids do not tell."
        ]
    return []


def plan_changes(first: dict[str, Any], second: dict[str, Any]) -> list[dict[str, str]]:
    """List the settings in which two plans differ: ``key`` ("settings.training.epochs"), ``first`` and ``second``."""
    values = [_flat(OLDER | plan) for plan in (first, second)]
    keys = sorted(values[0].keys() | values[1].keys())
    changed = [(key, *(each.get(key, "not set") for each in values)) for key in keys]
    return [{"key": key, "first": one, "second": other} for key, one, other in changed if one != other]


def _flat(value: Any, key: str = "") -> dict[str, str]:
    if not isinstance(value, dict):
        return {key: _in_words(value)}
    found: dict[str, str] = {}
    for name, inner in value.items():
        if key or name not in NO_SETTING:
            found |= _flat(inner, f"{key}.{name}" if key else name)
    return found


def _in_words(value: Any) -> str:
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " × ".join(map(_in_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
