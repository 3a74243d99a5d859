"""The command line's frame: the app, its version, and what happens around each command."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medstrata._version import __version__
from medstrata.commands.console import Console
from medstrata.errors import MedstrataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from medstrata.pipeline.job import Job

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
def session(out: Path) -> Iterator[Console]:
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


def new_job(out: Path, console: Console, **settings: Any) -> Job:
    """Return a job on the run folder ``out`` that reports to the console."""
    from medstrata.pipeline.job import Job
    from medstrata.run import RunFolder

    return Job(RunFolder(out), progress=console.progress, say=console.say, **settings)


def do_stage(
    name: str, out: Path, redo: bool, input_path: Path | None = None, shards: str | None = None, **settings: Any
) -> None:
    """Do one stage in a session of its own; ``shards``, I/N: one job's share of it."""
    from medstrata.images.manifest import Share
    from medstrata.pipeline.runner import run_share, run_stage

    check_address(settings.get("executor", ""), settings.get("address"))
    if shards is not None and redo:
        raise typer.BadParameter("--redo goes without --shards: a share of the shards does not make a stage undone")
    with session(out) as console:
        if shards is None:
            run_stage(name, new_job(out, console, **settings), input_path=input_path, redo=redo)
        else:
            share = Share(*map(int, shards.split("/")))
            run_share(name, new_job(out, console, share=share, **settings), input_path=input_path)


def check_address(executor: str, address: str | None) -> None:
    """Refuse an address that nothing would go to."""
    if address is not None and executor != "ray":
        raise typer.BadParameter("--address is that of a Ray cluster. Add: --executor ray")


def _version(show: bool) -> None:
    if show:
        print(f"medstrata {__version__}")
        raise typer.Exit()


@app.callback()
def _main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if "TORCHELASTIC_RUN_ID" in os.environ and context.invoked_subcommand != "fit":
        raise typer.BadParameter(
            f"torchrun starts `fit` only. Start this one by itself: medstrata {context.invoked_subcommand} ..."
        )
