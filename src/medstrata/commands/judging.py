"""Commands that judge a finished run: are its maps right, do its clusters agree with labels?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from medstrata.commands.app import do_stage, new_job, session
from medstrata.commands.options import Address, Device, ExecutorName, Out, Redo
from medstrata.pipeline.validation_settings import ValidationSettings


def explain(
    out: Out,
    check: Annotated[
        bool, typer.Option("--check", help="Also test the maps, beside controls: OUT/maps/check.json and the report.")
    ] = False,
    masks: Annotated[
        Path | None,
        typer.Option("--masks", help="With --check: .npz with key masks, or CSV with file and mask (and distractor)."),
    ] = None,
    refits: Annotated[
        int | None,
        typer.Option("--refits", min=0, help="With --check: fits with other seeds to compare with. [default: 1]"),
    ] = None,
    device: Device = "auto",
    executor: ExecutorName = "processes",
    address: Address = None,
    redo: Redo = False,
) -> None:
    """Draw cluster activation maps: OUT/maps/, on the grid of the source."""
    if not check and (masks is not None or refits is not None):
        raise typer.BadParameter("--masks and --refits are read by --check only: medstrata explain OUT --check ...")
    do_stage("explain", out, redo, device=device, executor=executor, address=address)
    if not check:
        print(out / "maps")
        return
    from medstrata.pipeline.checking import check_run
    from medstrata.pipeline.runner import run_stage

    with session(out) as console:
        job = new_job(out, console)
        with job.folder.locked():
            check_run(out, device, masks, 1 if refits is None else refits, console.progress, console.say)
        run_stage("report", job, redo=True)
        print(out / "maps" / "check.json")


def _range(value: str | None) -> str | None:
    low, dash, high = (value or "1-2").partition("-")
    if not (dash and low.isdigit() and high.isdigit() and 1 <= int(low) < int(high)):
        raise typer.BadParameter("give two whole numbers as LOW-HIGH, such as 2-12")
    return value


def _numbers(value: str | None) -> tuple[int, int] | None:
    return None if value is None else (int(value.split("-")[0]), int(value.split("-")[1]))


def validate(
    out: Out,
    refits: Annotated[
        int, typer.Option("--refits", min=0, help="Fits of each kind: with other random numbers, on other patients.")
    ] = ValidationSettings.refits,
    surrogates: Annotated[
        int, typer.Option("--surrogates", min=0, help="Sets of images without groups to try the same on.")
    ] = ValidationSettings.surrogates,
    clinical: Annotated[
        Path | None,
        typer.Option("--clinical", metavar="TABLE", help="CSV or Parquet, one row per patient, to compare with."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Known classes, as for score; compared, never used.")
    ] = None,
    clusters: Annotated[
        str | None,
        typer.Option("--clusters", metavar="LOW-HIGH", callback=_range, help="Numbers of clusters to look at."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Test whether the clusters are real: OUT/validation.json and the report. Takes as long as up to twenty fits."""
    from medstrata.pipeline.runner import validate_run

    with session(out) as console:
        job = new_job(out, console, device=device)
        validate_run(job, ValidationSettings(refits, surrogates, clinical, labels, _numbers(clusters)))
        print(out / "validation.json")


def score(
    out: Out,
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", help="npz with key labels, or CSV with image_id or file, and label.")
    ],
) -> None:
    """Compare the clusters with labels that the fit never saw; print JSON."""
    from medstrata.pipeline.scoring import score_run

    with session(out):
        print(json.dumps(score_run(out, labels), indent=1))


def compare(
    first: Annotated[Path, typer.Argument(metavar="OUT1", help="Run folder.")],
    second: Annotated[Path, typer.Argument(metavar="OUT2", help="Run folder with the same images, or some of them.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Where to write. [default: OUT2/comparison]")
    ] = None,
) -> None:
    """Compare two runs: which clusters belong together, which settings differ, which images moved, with a flow figure.

    Writes comparison.html, compare.json, flow.svg and moved.parquet.
    """
    from medstrata.pipeline.comparing import compare_runs

    with session(second) as console:
        print(compare_runs(first, second, out, console.say))
