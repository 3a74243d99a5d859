"""Commands that show a run, take down what people decide of it or pass it on, and simulate: images to try it all on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from medstrata.commands.app import do_stage, new_job, session
from medstrata.commands.options import Out, Redo

EDIT_HELP = "rename CLUSTER NAME, merge CLUSTER CLUSTER..., flag CLUSTER, flag IMAGE_ID, or undo: the last of them."


def report(out: Out, redo: Redo = False) -> None:
    """Write OUT/report.html: one page, no external requests."""
    do_stage("report", out, redo)
    print(out / "report.html")


def export(
    out: Out,
    folders: Annotated[
        Path | None, typer.Option("--folders", metavar="DIR", help="New folder: one sub-folder of links per cluster.")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="With --folders: copy the files instead of linking.")] = False,
    csv_file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="New CSV, one row per image.")] = None,
    parquet_file: Annotated[
        Path | None, typer.Option("--parquet", metavar="FILE", help="The same table as Parquet.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="The same table as JSON.")] = None,
) -> None:
    """Sort the files of a finished run into DIR/cluster-00, cluster-01, ..., rejected; or write a table of its images.

    The table holds the model's cluster of each image, what was decided with medstrata edit, and how sure the model is.
    """
    tables = {"csv": csv_file, "parquet": parquet_file, "json": json_file}
    files = {kind: file for kind, file in tables.items() if file is not None}
    if folders is None and not files:
        raise typer.BadParameter("Say what to write: --folders DIR, --csv FILE, --parquet FILE or --json FILE.")
    if copy and folders is None:
        raise typer.BadParameter("--copy is about folders. Add: --folders DIR")
    from medstrata.pipeline.export import export_folders
    from medstrata.pipeline.export_table import check_tables, write_tables

    with session(out) as console:
        check_tables(out, files)
        if folders is not None:
            found = export_folders(out, folders, copy, console.progress)
            console.say(f"export: {found.placed} images placed")
            for reason, count in found.left_out.items():
                console.say(f"export: {count} images not placed: {reason}; index.csv says the cluster of each")
            print(folders)
        if files:
            console.say(f"export: a table of {write_tables(out, files)} images")
            print(*files.values(), sep="\n")


def edit(
    out: Out,
    action: Annotated[Literal["rename", "merge", "flag", "undo"], typer.Argument(metavar="ACTION", help=EDIT_HELP)],
    values: Annotated[list[str] | None, typer.Argument(metavar="VALUES", help="Numbers, name or image_id.")] = None,
    who: Annotated[str, typer.Option("--who", metavar="NAME", help="Who decided it, as it shall be shown.")] = "",
    why: Annotated[str, typer.Option("--why", metavar="REASON", help="Why; a flag needs it.")] = "",
) -> None:
    """Write down what a person decides about the clusters: OUT/decisions.jsonl, and the report made anew.

    The model's own output stays as it is. Decisions can be passed on with OUT: write nothing that names a patient.
    """
    from medstrata.pipeline.editing import edit_run
    from medstrata.pipeline.runner import run_stage

    with session(out) as console:
        console.say(f"edit: {edit_run(out, action, values or [], who, why)}")
        job = new_job(out, console)
        if job.folder.token("explain"):
            run_stage("report", job)
            print(out / "report.html")


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

    with session(out_dicom) as console:
        study = Study(patients=patients, seed=seed)
        study = study if noise is None else replace(study, noise=noise)
        simulate_study(out_dicom, study, console.progress)
        print(out_dicom)
