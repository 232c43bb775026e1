"""Resumable states outside every DVC output: whole files that say what made them."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from diffretouch.files.atomic import whole

Mark = str | int | float | bool | None
SLOWEST_SAVE_S = 20.0
"""A process that is asked to stop has 30 seconds with most schedulers, and must leave within them."""
SLOW_DISK = 200e6
"""Bytes a second that a save is expected to write before one has been timed."""


def flat(tree: Any, name: str) -> dict[str, Mark]:
    """Nested sections and lists as one level: {"train": {"tau": .1}} named params -> {"params.train.tau": .1}."""
    if not isinstance(tree, Mapping | list | tuple):
        return {name: tree}
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    return {key: mark for part, value in items for key, mark in flat(value, f"{name}.{part}").items()}


class States:
    """The states of one run in a folder, a file a step, the newest `keep` of them.

    `marks` say what the run is made of (parameters, data, code, versions): a state with other ones is never taken up.
    """

    def __init__(self, folder: Path, marks: Mapping[str, Mark], keep: int) -> None:
        self.folder, self.marks, self.keep = folder, dict(marks), keep
        self._seconds = 0.0
        self._own: list[Path] = []

    def newest(self) -> dict[str, Any] | None:
        """The newest state of this run, or None; what is different in another run's is said on stderr."""
        for left in self.folder.glob(".step-*"):
            left.unlink(missing_ok=True)  # by a save that was killed
        for path in reversed(self._files()):
            state = torch.load(path, weights_only=True, mmap=True)
            differing = _differences(state["marks"], self.marks)
            if not differing:
                self._own = self._files()
                return state
            print(f"{path} is of another run: {differing}; it is not taken up", file=sys.stderr)
        return None

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state after `step` steps, whole, then remove this run's older ones and another run's.

        Raises OSError where it does not fit; the states before it are still there then.
        """
        started = time.monotonic()
        path = self.folder / f"step-{step:09d}.pt"
        with whole(path) as temporary:
            try:
                torch.save({"marks": self.marks, "step": step, **state}, temporary)
            except RuntimeError as error:
                # torch tells a full disk so, without the file's name
                if _free(self.folder) > _size(state):
                    raise
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        self._own = [*(old for old in self._own if old != path), path][-self.keep :]
        for old in set(self._files()) - set(self._own):
            old.unlink()
        self._seconds = time.monotonic() - started

    def fits(self, state: Mapping[str, Any]) -> bool:
        """Whether one more save should end before a stopped process is killed: by the last one, else by its size."""
        return (self._seconds or _size(state) / SLOW_DISK) < SLOWEST_SAVE_S

    def clear(self) -> None:
        """Remove them all: the run is over."""
        for path in self._files():
            path.unlink()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"))


def _differences(theirs: Mapping[str, Mark], ours: Mapping[str, Mark]) -> str:
    """`train.tau was 0.1, is 0.2, ...`; empty where nothing differs."""
    names = [name for name in {**ours, **theirs} if theirs.get(name) != ours.get(name)]
    said = [
        f"{name} was {_short(theirs.get(name))}, is {_short(ours.get(name))}" for name in names[:6]
    ]  # a state of quite another run differs in everything
    return ", ".join(said + ([f"and {len(names) - 6} more"] if len(names) > 6 else []))


def _short(mark: Mark) -> str:
    text = str(mark)
    return f"{text[:12]}..." if len(text) > 40 else text


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _size(tree: Any) -> int:
    """Bytes of the tensors in a state."""
    if isinstance(tree, torch.Tensor):
        return tree.nbytes
    values = tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, list | tuple) else ()
    return sum(_size(value) for value in values)


class CutShort(Exception):
    """Something long was left unfinished because the process was asked to stop."""


class Stopped(SystemExit):
    """Training was asked to stop; exits 143 for SIGTERM, 130 for Ctrl-C, never 0."""


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """While inside, SIGTERM and Ctrl-C are put into the list given, for the loop to act on between two steps."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
