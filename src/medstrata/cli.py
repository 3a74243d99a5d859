"""The entry point of ``medstrata``: all commands, in the order in which ``--help`` lists them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from medstrata.commands import judging, sharing, stages
from medstrata.commands.app import app

COMMANDS: tuple[Callable[..., None], ...] = (
    *(stages.run, stages.scan, stages.plan, stages.decode, stages.fit, stages.assign),
    *(judging.validate, judging.explain, sharing.report, sharing.edit, judging.compare),
    *(sharing.export, judging.score, sharing.simulate),
)
for command in COMMANDS:
    app.command()(command)


def main(arguments: list[str] | None = None, run_app: Callable[..., Any] = app) -> None:
    """Run the command line; the entry point of ``medstrata`` and ``python -m medstrata``."""
    run_app(arguments)
