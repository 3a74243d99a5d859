"""Commands that carry out stages: run, and one for each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from medstrata._version import __version__
from medstrata.commands.app import do_stage, new_job, session
from medstrata.commands.options import (
    AdjustFor,
    BurnedIn,
    Clusters,
    Device,
    Features,
    Goal,
    Input,
    Method,
    NewOut,
    Out,
    Redo,
    Seed,
    Select,
    Workers,
)


def _plan_options(**values: Any) -> Any:
    from medstrata.images.planning import PlanOptions

    given = {name: value for name, value in values.items() if value is not None}
    if given.get("n_clusters", "auto") != "auto":
        given["n_clusters"] = int(given["n_clusters"])
    return PlanOptions(**given | {name: tuple(given.get(name, ())) for name in ("select", "adjust_for")})


def run(  # noqa: PLR0913 - one parameter per option
    input_path: Input,
    out: NewOut,
    clusters: Clusters = None,
    method: Method = None,
    seed: Seed = None,
    goal: Goal = None,
    select: Select = None,
    adjust_for: AdjustFor = None,
    include_burned_in: BurnedIn = False,
    features: Features = None,
    device: Device = "auto",
    workers: Workers = 0,
    redo: Annotated[
        Literal["scan", "plan", "decode", "fit", "assign", "validate", "explain", "report"] | None,
        typer.Option("--redo", metavar="STAGE", help="Repeat this stage and all after it."),
    ] = None,
) -> None:
    """Do everything: from a folder of images to explained clusters in OUT/report.html."""
    from medstrata.pipeline.runner import run_pipeline

    if features is not None and method is not None:
        raise typer.BadParameter("--features and --method exclude each other: vectors are clustered as they are")
    with session(out) as console:
        console.say(f"medstrata {__version__}: research use only, not a medical device; nothing leaves this computer")
        options = _plan_options(
            n_clusters=clusters,
            method=method if features is None else "features",
            seed=seed,
            goal=goal,
            select=select,
            adjust_for=adjust_for,
            include_burned_in=include_burned_in,
        )
        settings = {"options": options, "device": device, "workers": workers, "features": features}
        report_file = run_pipeline(input_path, out, redo=redo, progress=console.progress, say=console.say, **settings)
        console.say("done")
        print(report_file)


def scan(input_path: Input, out: NewOut, workers: Workers = 0, redo: Redo = False) -> None:
    """Read headers only: OUT/catalog.parquet, one row per image, a reason for everything left out."""
    do_stage("scan", out, redo, input_path, workers=workers)


def plan(  # noqa: PLR0913 - one parameter per option
    out: Out,
    clusters: Clusters = None,
    method: Method = None,
    seed: Seed = None,
    goal: Goal = None,
    select: Select = None,
    adjust_for: AdjustFor = None,
    include_burned_in: BurnedIn = False,
    redo: Redo = False,
) -> None:
    """Choose what to do from the catalog: OUT/plan.json, one sentence of reason per decision; edit it freely."""
    options = {"n_clusters": clusters, "method": method, "seed": seed, "goal": goal, "select": select}
    options |= {"adjust_for": adjust_for, "include_burned_in": include_burned_in}
    do_stage("plan", out, redo, options=_plan_options(**options))


def decode(out: Out, workers: Workers = 0, redo: Redo = False) -> None:
    """Decode the planned images once: OUT/pixels.npy on one grid, OUT/images.parquet, OUT/left_out.parquet."""
    do_stage("decode", out, redo, workers=workers)


def fit(out: Out, device: Device = "auto", redo: Redo = False) -> None:
    """Train the clustering: OUT/model.safetensors. Goes on from its last epoch after an interruption."""
    do_stage("fit", out, redo, device=device)


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
        do_stage("assign", out, redo, device=device)
        return
    if new_out is None:
        raise typer.BadParameter("NEW_OUT is missing: medstrata assign OUT NEW_INPUT NEW_OUT")
    from medstrata.pipeline.runner import assign_new

    with session(new_out) as console:
        assign_new(out, new_input, new_job(new_out, console, device=device, workers=workers), redo=redo)
        print(new_out / "report.html")
