"""Commands that carry out stages: run, and one for each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from medstrata._version import __version__
from medstrata.commands.app import check_address, do_stage, new_job, session
from medstrata.commands.options import (
    Address,
    AdjustFor,
    BurnedIn,
    Clusters,
    Device,
    ExecutorName,
    Features,
    Goal,
    Input,
    Method,
    NewOut,
    Out,
    Redo,
    Seed,
    Select,
    Shards,
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
    executor: ExecutorName = "processes",
    address: Address = None,
    redo: Annotated[
        Literal["scan", "plan", "decode", "fit", "assign", "validate", "explain", "report"] | None,
        typer.Option("--redo", metavar="STAGE", help="Repeat this stage and all after it."),
    ] = None,
) -> None:
    """Do everything: from a folder of images to explained clusters in OUT/report.html."""
    from medstrata.pipeline.runner import run_pipeline

    if features is not None and method is not None:
        raise typer.BadParameter("--features and --method exclude each other: vectors are clustered as they are")
    check_address(executor, address)
    with session(out) as console:
        where = "this computer" if executor == "processes" else "the computers that do the work"
        console.say(f"medstrata {__version__}: research use only, not a medical device; nothing leaves {where}")
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
        settings |= {"executor": executor, "address": address}
        report_file = run_pipeline(input_path, out, redo=redo, progress=console.progress, say=console.say, **settings)
        console.say("done")
        print(report_file)


def scan(
    input_path: Input,
    out: NewOut,
    workers: Workers = 0,
    executor: ExecutorName = "processes",
    address: Address = None,
    shards: Shards = None,
    redo: Redo = False,
) -> None:
    """Read headers only: OUT/catalog.parquet, one row per image, a reason for everything left out."""
    do_stage("scan", out, redo, input_path, shards, workers=workers, executor=executor, address=address)


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


def decode(
    out: Out,
    workers: Workers = 0,
    executor: ExecutorName = "processes",
    address: Address = None,
    shards: Shards = None,
    redo: Redo = False,
) -> None:
    """Decode the planned images once: OUT/pixels.npy on one grid, OUT/images.parquet, OUT/left_out.parquet."""
    do_stage("decode", out, redo, None, shards, workers=workers, executor=executor, address=address)


def fit(out: Out, device: Device = "auto", redo: Redo = False) -> None:
    """Train the clustering: OUT/model.safetensors. Goes on from its last epoch after an interruption.

    In several processes: torchrun --standalone --nproc_per_node=2 -m medstrata fit OUT
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        do_stage("fit", out, redo, device=device)
        return
    from medstrata.pipeline.together import fit_together

    with session(out) as console:
        fit_together(new_job(out, console, device=device), redo)


def assign(  # noqa: PLR0913 - one parameter per option
    out: Out,
    new_input: Annotated[Path | None, typer.Argument(metavar="NEW_INPUT", help="New images to sort.")] = None,
    new_out: Annotated[Path | None, typer.Argument(metavar="NEW_OUT", help="A run folder of their own.")] = None,
    device: Device = "auto",
    workers: Workers = 0,
    executor: ExecutorName = "processes",
    address: Address = None,
    shards: Shards = None,
    redo: Redo = False,
) -> None:
    """Assign every image: OUT/assignments.parquet; with NEW_INPUT NEW_OUT, sort new images by OUT's model."""
    who: dict[str, Any] = {"device": device, "workers": workers, "executor": executor, "address": address}
    if new_input is None:
        do_stage("assign", out, redo, None, shards, **who)
        return
    check_address(executor, address)
    if new_out is None:
        raise typer.BadParameter("NEW_OUT is missing: medstrata assign OUT NEW_INPUT NEW_OUT")
    if shards is not None:
        raise typer.BadParameter("--shards goes without NEW_INPUT: medstrata assign OUT --shards I/N")
    from medstrata.pipeline.runner import assign_new

    with session(new_out) as console:
        assign_new(out, new_input, new_job(new_out, console, **who), redo=redo)
        print(new_out / "report.html")
