"""Telling people what became of a retraining: a command of theirs, or a notification block of Prefect's server."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from prefect import get_run_logger
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block

from diffretouch.errors import ConfigError, UserError

COMMAND_S = 60
COMMAND = "DIFFRETOUCH_NOTIFY"
"""A command and its arguments, quoted as for a shell (none is involved). In the environment, whose owner may run
commands here anyway, and never a flow's parameter, which comes from a server.
"""


class NotTold(UserError):
    """What was to be told reached nobody; the message has it."""


class Teller:
    """Who is told.

    Raises:
        ConfigError: the command or the block does not exist: said before hours of training, not after.
    """

    def __init__(self, block: str | None) -> None:
        try:
            command = shlex.split(os.environ.get(COMMAND, ""))
        except ValueError as error:
            raise ConfigError(f"{COMMAND} is not quoted as for a shell: {error}") from error
        if command and shutil.which(command[0]) is None:
            raise ConfigError(f"{COMMAND}: there is no command {command[0]!r}")
        self._command, self._block = command, _notification(block) if block else None

    def tell(self, outcomes: Sequence[Mapping[str, Any]]) -> None:
        """Log them, give them as JSON to the command and in words to the block.

        Raises:
            NotTold: that failed.
        """
        words = [f"{outcome['dataset']}: {outcome['decision']}: {outcome['summary']}" for outcome in outcomes]
        for line in words:
            get_run_logger().info(line)
        try:
            if self._command:
                _run(self._command, json.dumps(list(outcomes)))
            if self._block:
                subject = "retrain: " + ", ".join(f"{outcome['dataset']} {outcome['decision']}" for outcome in outcomes)
                with self._block.raise_on_failure():
                    self._block.notify("\n".join(words), subject)
        # a block is anybody's code and raises what its service's library does
        except Exception as error:
            raise NotTold(f"nobody was told: {error}. It was:\n" + "\n".join(words)) from error


def _run(command: Sequence[str], text: str) -> None:
    """No shell is involved."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=COMMAND_S)
    if done.returncode:
        raise ChildProcessError(f"{command[0]} ended with exit code {done.returncode}: {done.stderr.strip()}")


def _notification(name: str) -> Any:
    """The block; typed as anything, since its methods may be awaited elsewhere, which they are not here."""
    try:
        block: Any = Block.load(name)
    except ValueError as error:
        raise ConfigError(f"notify_block: the server has no block {name!r}; `prefect block ls` lists them") from error
    if not isinstance(block, NotificationBlock):
        raise ConfigError(f"notify_block: {name} is a {type(block).__name__}, which notifies nobody")
    return block
