"""What a run says on its console, which is never worth the run itself."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress


def outlive_reader() -> None:
    """From now on, Prefect's lines on the console go nowhere once nobody reads them.

    A deployed run's console is read by its worker. With that killed, rich, which writes the lines, would end the
    process at the next one (`rich.console.Console.on_broken_pipe`), in the middle of a chain.
    """
    from prefect.logging.handlers import PrefectConsoleHandler  # heavy, and of no use to who only says something

    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    for handler in {handler for logger in loggers for handler in logger.handlers}:
        if isinstance(handler, PrefectConsoleHandler):
            console = handler.console
            setattr(console, "on_broken_pipe", lambda console=console: setattr(console, "quiet", True))  # noqa: B010


def say(line: str) -> None:
    """A line on stderr, if anybody reads it."""
    with suppress(BrokenPipeError):
        print(line, file=sys.stderr)
