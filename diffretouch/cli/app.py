"""The application that every command joins."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

# Threads of torch that wait for one another sleep: spinning ones slow a step 2 to 5 times once anything else runs.
# OpenMP reads this once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class Commands(TyperGroup):
    """Commands that say what to do after Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("interrupted: run the same command again", file=sys.stderr)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Learn how experts retouch photos: from RAW files to one report, in stages.\n\n"
    "`make repro` does everything on a fresh clone; `dvc repro` runs the stages that are out of date. Each stage is a "
    "command here too, in the order of the list: all read params.yaml and run from the root of the repository.\n\n"
    "Exit codes: 0 done, 1 failed, 2 a mistake in params.yaml or on the command line.",
)
