"""The command line: one command per stage, each a thin call. Research use only, not a medical device."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medstrata._version import __version__
from medstrata.console import Console
from medstrata.errors import MedstrataError
from medstrata.options import (
    BurnedIn,
    Clusters,
    Device,
    Features,
    Goal,
    Input,
    Method,
    Out,
    Redo,
    Seed,
    Select,
    Workers,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from medstrata.pipeline.stages import Job

app = typer.Typer(
    name="medstrata",
    help="Turn unlabelled medical images into named, explained and tested clusters. "
    "Research use only, not a medical device. Nothing leaves your computer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@contextmanager
def _session(out: Path) -> Iterator[Console]:
    """Show what happens, keep the log, and turn our errors into one sentence and exit code 1."""
    console = Console()
    try:
        with console:
            yield console
    except MedstrataError as error:
        console.write_log(out)
        print(f"medstrata: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        print("medstrata: stopped. Run the same command again; it goes on where it stopped.", file=sys.stderr)
        raise typer.Exit(1) from None
    console.write_log(out)


def _job(out: Path, console: Console, **settings: Any) -> Job:
    from medstrata.pipeline.stages import Job
    from medstrata.run import RunFolder

    return Job(RunFolder(out), progress=console.progress, say=console.say, **settings)


def _options(**values: Any) -> Any:
    from medstrata.images.planning import PlanOptions

    given = {name: value for name, value in values.items() if value is not None}
    if given.get("n_clusters", "auto") != "auto":
        given["n_clusters"] = int(given["n_clusters"])
    return PlanOptions(**given | {"select": tuple(given.get("select", ()))})


def _stage(name: str, out: Path, redo: bool, input_path: Path | None = None, **settings: Any) -> None:
    from medstrata.pipeline.runner import run_stage

    with _session(out) as console:
        run_stage(name, _job(out, console, **settings), input_path=input_path, redo=redo)


@app.command()
def run(  # noqa: PLR0913 - one parameter per option
    input_path: Input,
    out: Out,
    clusters: Clusters = None,
    method: Method = None,
    seed: Seed = None,
    goal: Goal = None,
    select: Select = None,
    include_burned_in: BurnedIn = False,
    features: Features = None,
    device: Device = "auto",
    workers: Workers = 0,
    redo: Annotated[
        Literal["scan", "plan", "decode", "fit", "assign", "explain", "report"] | None,
        typer.Option("--redo", metavar="STAGE", help="Repeat this stage and all after it."),
    ] = None,
) -> None:
    """Do everything: from a folder of images to explained clusters in OUT/report.html."""
    from medstrata.pipeline.runner import run_pipeline

    if features is not None and method is not None:
        raise typer.BadParameter("--features and --method exclude each other: vectors are clustered as they are")
    with _session(out) as console:
        console.say(f"medstrata {__version__}: research use only, not a medical device; nothing leaves this computer")
        options = _options(
            n_clusters=clusters,
            method=method if features is None else "features",
            seed=seed,
            goal=goal,
            select=select,
            include_burned_in=include_burned_in,
        )
        settings = {"options": options, "device": device, "workers": workers, "features": features}
        report_file = run_pipeline(input_path, out, redo=redo, progress=console.progress, say=console.say, **settings)
        console.say("done")
        print(report_file)


@app.command()
def scan(input_path: Input, out: Out, workers: Workers = 0, redo: Redo = False) -> None:
    """Read headers only: OUT/catalog.parquet, one row per image, a reason for everything left out."""
    _stage("scan", out, redo, input_path, workers=workers)


@app.command()
def plan(
    out: Out,
    clusters: Clusters = None,
    method: Method = None,
    seed: Seed = None,
    goal: Goal = None,
    select: Select = None,
    include_burned_in: BurnedIn = False,
    redo: Redo = False,
) -> None:
    """Choose what to do from the catalog: OUT/plan.json, one sentence of reason per decision; edit it freely."""
    options = {"n_clusters": clusters, "method": method, "seed": seed, "goal": goal, "select": select}
    _stage("plan", out, redo, options=_options(**options, include_burned_in=include_burned_in))


@app.command()
def decode(out: Out, workers: Workers = 0, redo: Redo = False) -> None:
    """Decode the planned images once: OUT/pixels.npy on one grid, OUT/images.parquet, OUT/left_out.parquet."""
    _stage("decode", out, redo, workers=workers)


@app.command()
def fit(out: Out, device: Device = "auto", redo: Redo = False) -> None:
    """Train the clustering: OUT/model.safetensors. Goes on from its last epoch after an interruption."""
    _stage("fit", out, redo, device=device)


@app.command()
def assign(
    out: Out,
    new_input: Annotated[Path | None, typer.Argument(metavar="NEW_INPUT", help="New images to sort.")] = None,
    new_out: Annotated[Path | None, typer.Argument(metavar="NEW_OUT", help="A run folder of their own.")] = None,
    device: Device = "auto",
    workers: Workers = 0,
    redo: Redo = False,
) -> None:
    """Assign every image: OUT/assignments.parquet; with NEW_INPUT NEW_OUT, sort new images by OUT's model."""
    if new_input is None:
        _stage("assign", out, redo, device=device)
        return
    if new_out is None:
        raise typer.BadParameter("NEW_OUT is missing: medstrata assign OUT NEW_INPUT NEW_OUT")
    from medstrata.pipeline.runner import assign_new

    with _session(new_out) as console:
        assign_new(out, new_input, _job(new_out, console, device=device, workers=workers), redo=redo)
        print(new_out / "report.html")


@app.command()
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
    redo: Redo = False,
) -> None:
    """Draw cluster activation maps: OUT/maps/, on the grid of the source."""
    if not check and (masks is not None or refits is not None):
        raise typer.BadParameter("--masks and --refits are read by --check only: medstrata explain OUT --check ...")
    _stage("explain", out, redo, device=device)
    if not check:
        return
    from medstrata.pipeline.checking import check_run
    from medstrata.pipeline.runner import run_stage

    with _session(out) as console:
        job = _job(out, console)
        with job.folder.locked():
            check_run(out, device, masks, 1 if refits is None else refits, console.progress, console.say)
        run_stage("report", job, redo=True)
        print(out / "maps" / "check.json")


@app.command()
def report(out: Out, redo: Redo = False) -> None:
    """Write OUT/report.html: one page, no external requests."""
    _stage("report", out, redo)
    print(out / "report.html")


@app.command()
def export(
    out: Out,
    folders: Annotated[
        Path, typer.Option("--folders", metavar="DIR", help="New folder: one sub-folder of links per cluster.")
    ],
    copy: Annotated[bool, typer.Option("--copy", help="Copy the files instead of linking to them.")] = False,
) -> None:
    """Sort the files of a finished run into DIR/cluster-00, cluster-01, ..., rejected, with DIR/index.csv."""
    from medstrata.pipeline.export import export_folders

    with _session(out) as console:
        found = export_folders(out, folders, copy, console.progress)
        console.say(f"export: {found.placed} images placed")
        for reason, count in found.left_out.items():
            console.say(f"export: {count} images not placed: {reason}; index.csv says the cluster of each")
        print(folders)


@app.command()
def score(
    out: Out,
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", help="npz with key labels, or CSV with image_id or file, and label.")
    ],
) -> None:
    """Compare the clusters with labels that the fit never saw; print JSON."""
    from medstrata.pipeline.scoring import score_run

    with _session(out):
        print(json.dumps(score_run(out, labels), indent=1))


@app.command()
def simulate(
    out_dicom: Annotated[
        Path, typer.Argument(metavar="OUT_DICOM", help="New folder for the DICOM files; truth goes beside it.")
    ],
    patients: Annotated[int, typer.Option("--patients", min=3, help="Number of simulated patients.")] = 60,
    noise: Annotated[
        float | None, typer.Option("--noise", min=0.0, help="Standard deviation of the noise, HU.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of all random numbers.")] = 0,
) -> None:
    """Write a simulated lung CT study with planted abnormalities as DICOM series, to try medstrata on."""
    from medstrata.simulation.study import Study, simulate_study

    with _session(out_dicom) as console:
        study = Study(patients=patients, seed=seed)
        study = study if noise is None else replace(study, noise=noise)
        simulate_study(out_dicom, study, console.progress)
        print(out_dicom)


def _version(show: bool) -> None:
    if show:
        print(f"medstrata {__version__}")
        raise typer.Exit()


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None, run_app: Callable[..., Any] = app) -> None:
    """Run the command line; the entry point of ``medstrata`` and ``python -m medstrata``."""
    run_app(arguments)
