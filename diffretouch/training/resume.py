"""Resumable states outside every DVC output: whole files that say what made them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from diffretouch.files.atomic import whole, write_json, write_text

MARKS, SECONDS = "marks.json", "seconds"
Mark = str | int | float | bool | None
SLOWEST_SAVE_S = 20.0
"""A process that is asked to stop has 30 seconds with most schedulers, and must leave within them."""
LEAVES_AFTER_S = 25.0
"""Whatever it is doing by then - a save, a compilation, a step that hangs - it is left undone."""
SLOW_DISK = 200e6
"""Bytes a second that a save is expected to write before one has been timed."""


def flat(tree: Any, name: str) -> dict[str, Mark]:
    """Nested sections and lists as one level: {"train": {"tau": .1}} named params -> {"params.train.tau": .1}."""
    if not isinstance(tree, Mapping | list | tuple):
        return {name: tree}
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    return {key: mark for part, value in items for key, mark in flat(value, f"{name}.{part}").items()}


class States:
    """The states of one run in a folder of its own, a file a step, the newest `keep` of them.

    `marks` say what the run is made of (parameters, data, code, versions), and name the folder inside `home`: a state
    with other ones is never taken up, and never removed.
    """

    def __init__(self, home: Path, marks: Mapping[str, Mark], keep: int) -> None:
        self.marks, self.keep = dict(marks), keep
        digest = hashlib.sha256(json.dumps(self.marks, sort_keys=True).encode()).hexdigest()
        self.folder = home / f"states-{digest[:16]}"

    def newest(self) -> dict[str, Any] | None:
        """The newest state of this run, on the CPU, or None; other runs' beside it are said on stderr, with the fields
        that differ.
        """
        for left in self.folder.glob(".step-*"):
            left.unlink(missing_ok=True)  # by a save that was killed
        if files := self._files():
            # to the CPU: else every process of a machine would load all of it onto the first process's GPU
            return torch.load(files[-1], weights_only=True, mmap=True, map_location="cpu")
        for other in sorted(self.folder.parent.glob(f"states-*/{MARKS}")):
            if theirs := _states(other.parent):
                print(
                    f"{theirs[-1]} is of another run: {_differences(json.loads(other.read_text()), self.marks)}; it is "
                    f"not taken up, and kept for a run like that one ({_gib(theirs):.1f} GiB; `rm -r {other.parent}` "
                    "frees them)",
                    file=sys.stderr,
                )
        return None

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state after `step` steps, whole, then remove this run's older ones.

        Raises OSError where it does not fit; the states before it are still there then.
        """
        started = time.monotonic()
        path = self.folder / f"step-{step:09d}.pt"
        if not (self.folder / MARKS).exists():
            write_json(self.folder / MARKS, self.marks)
        with whole(path) as temporary:
            try:
                torch.save({"step": step, **state}, temporary)
            except RuntimeError as error:
                # torch tells a full disk so, without the file's name
                if _free(self.folder) > _size(state):
                    raise
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        for old in self._files()[: -self.keep]:
            old.unlink()
        write_text(self.folder / SECONDS, str(time.monotonic() - started))

    def fits(self, state: Mapping[str, Any]) -> bool:
        """Whether one more save should end before a stopped process is killed: by the run's last one, else its size."""
        last = self.folder / SECONDS
        return (float(last.read_text()) if last.exists() else _size(state) / SLOW_DISK) < SLOWEST_SAVE_S

    def clear(self) -> None:
        """Remove them all: the run is over."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        return _states(self.folder)


def _states(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(folder.glob("step-*.pt"))


def _gib(files: list[Path]) -> float:
    return sum(file.stat().st_size for file in files) / 2**30


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
def stop_requests(leave_after_s: float | None = None) -> Iterator[list[int]]:
    """While inside, SIGTERM and Ctrl-C are put into the list given, for the loop to act on between two steps.

    A process that is still inside `leave_after_s` seconds later ends there and then, with the exit code it would have
    had: files that it was writing have not taken their places.
    """
    received: list[int] = []
    timers: list[threading.Timer] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if leave_after_s is not None and not timers:
            timers.append(threading.Timer(leave_after_s, _leave, [number, leave_after_s]))
            timers[0].daemon = True
            timers[0].start()

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for timer in timers:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, after_s: float) -> None:
    words = f"not done {after_s:.0f} s after it was asked to stop: left where it was, the last saved state is kept\n"
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, words.encode())
    os._exit(128 + number)
