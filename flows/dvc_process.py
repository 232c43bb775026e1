"""`dvc` as a child process: its lines as they come, its meaning afterwards, and an end that leaves nothing running."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

Outcome = Literal["ran", "restored", "up to date"]

TAIL_LINES = 20
GRACE_S = 30
"""What a stage gets to save its state after SIGTERM."""

_BUSY = ("Unable to acquire lock", "is busy, it is being blocked by")


class StageFailed(Exception):
    """`dvc repro` of a stage failed; the message holds its last lines."""


class DvcBusy(Exception):
    """Another DVC process holds the repository or a path: worth another try, and the only failure that is."""


class Stopped(Exception):
    """The flow is being stopped; nothing may start any more."""


@dataclass
class _Running:
    """Children of this process, so that a signal can end them from the main thread."""

    lock: threading.Lock
    processes: set[psutil.Popen]
    stopping: bool = False


_running = _Running(threading.Lock(), set())


def repro(stage: str, root: Path, log: Callable[[str], None]) -> Outcome:
    """Run `dvc repro --single-item stage` in `root`, each line to `log`; raises StageFailed, DvcBusy or Stopped.

    The child stays in this process's group on purpose: a worker that cancels a run signals its group.
    """
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage]
    process = _start(command, root)
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    outcome: Outcome = "ran"
    try:
        for line in process.stdout:
            text = line.rstrip()
            if text:
                log(text)
                tail.append(text)
            if text == f"Stage '{stage}' didn't change, skipping":
                outcome = "up to date"
            elif text.startswith(f"Stage '{stage}' is cached - skipping run"):
                outcome = "restored"
        code = process.wait()
    finally:
        with _running.lock:
            _running.processes.discard(process)
    if _running.stopping:
        raise Stopped(f"{stage} was stopped")
    if code == 0:
        return outcome
    last = "\n".join(tail)
    if any(sign in last for sign in _BUSY):
        raise DvcBusy(f"DVC is busy, {stage} waits:\n{last}")
    raise StageFailed(f"dvc repro {stage} ended with exit code {code}; its last lines:\n{last}")


def changed_corpus(root: Path) -> bool:
    """Whether `data/` is no longer what `data.dvc` says; False where there is no `data.dvc`."""
    if not (root / "data.dvc").exists():
        return False
    command = [sys.executable, "-m", "dvc", "status", "data.dvc"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return "modified:" in done.stdout


def stop_all() -> None:
    """End every running stage with all its descendants, and come back only when they are gone."""
    with _running.lock:
        _running.stopping = True
        family = {relative for process in _running.processes for relative in _family(process)}
    for process in family:
        _signal(process, psutil.Process.terminate)
    _, alive = psutil.wait_procs(family, timeout=GRACE_S)
    # what a dying stage started meanwhile goes with it
    stubborn = {relative for process in alive for relative in _family(process)}
    for process in stubborn:
        _signal(process, psutil.Process.kill)
    psutil.wait_procs(stubborn, timeout=GRACE_S)


def allow() -> None:
    """Let stages start again after `stop_all` (a worker that runs one flow after another)."""
    _running.stopping = False


def _start(command: list[str], root: Path) -> psutil.Popen:
    with _running.lock:
        if _running.stopping:
            raise Stopped("not started: the flow is being stopped")
        process = psutil.Popen(
            command,
            cwd=root,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        _running.processes.add(process)
    return process


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _signal(process: psutil.Process, action: Callable[[psutil.Process], None]) -> None:
    try:
        action(process)
    except psutil.NoSuchProcess:
        return  # it ended by itself meanwhile, which is what was wanted
