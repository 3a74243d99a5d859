"""Commands that show a run or pass it on, and simulate: images to try it all on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from medstrata.commands.app import do_stage, session
from medstrata.commands.options import Out, Redo


def report(out: Out, redo: Redo = False) -> None:
    """Write OUT/report.html: one page, no external requests."""
    do_stage("report", out, redo)
    print(out / "report.html")


def export(
    out: Out,
    folders: Annotated[
        Path, typer.Option("--folders", metavar="DIR", help="New folder: one sub-folder of links per cluster.")
    ],
    copy: Annotated[bool, typer.Option("--copy", help="Copy the files instead of linking to them.")] = False,
) -> None:
    """Sort the files of a finished run into DIR/cluster-00, cluster-01, ..., rejected, with DIR/index.csv."""
    from medstrata.pipeline.export import export_folders

    with session(out) as console:
        found = export_folders(out, folders, copy, console.progress)
        console.say(f"export: {found.placed} images placed")
        for reason, count in found.left_out.items():
            console.say(f"export: {count} images not placed: {reason}; index.csv says the cluster of each")
        print(folders)


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
