"""What the commands of this package have in common. Prefect is not imported here: --help answers at once."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import NoReturn

MAX_WORKERS = 4
"""Stages of a chain at the same time, as far as there are slots of GPUs and cores for them (flows/slots.py)."""


def positive(text: str) -> int:
    """An argument's `type`: a whole number, at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def add_root(parser: argparse.ArgumentParser) -> None:
    """The option --root."""
    parser.add_argument(
        "--root", type=Path, default=Path(), help="root of the repository (default: the current folder)"
    )


def add_timeout(parser: argparse.ArgumentParser) -> None:
    """The option --timeout of what runs stages."""
    parser.add_argument(
        "--timeout",
        action="append",
        default=[],
        metavar="STAGE=SECONDS",
        help="end a stage that takes longer; it has failed then (may be repeated; none by default)",
    )


def add_amounts(parser: argparse.ArgumentParser) -> None:
    """The options --max-workers, --sample-parts and --timeout of what runs a chain."""
    add_timeout(parser)
    parser.add_argument(
        "--max-workers",
        type=positive,
        default=MAX_WORKERS,
        metavar="N",
        help=f"stages at the same time at most, as GPUs and cores allow (default {MAX_WORKERS})",
    )
    parser.add_argument(
        "--sample-parts",
        type=positive,
        default=1,
        metavar="N",
        help="have workers of PREFECT_API_URL's server make the sampled pictures in so many parts (default 1: none)",
    )


def end_on_sigterm() -> None:
    """SIGTERM unwinds as Ctrl-C does, so that locks are released and stages ended; the exit code is 143."""
    signal.signal(signal.SIGTERM, _end)


def _end(_signal: int, _frame: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)
