"""`dvc` as a child process: its lines as they come, its meaning afterwards, and an end that leaves nothing running."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from dvc.lock import make_lock
from dvc.repo import Repo
from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK

Outcome = Literal["ran", "restored", "up to date"]

TAIL_LINES = 20
GRACE_S = 30
"""What a stage gets to save its state after SIGTERM."""

_CORRUPT = "JSON structure is corrupted"
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
    if _CORRUPT in last and _remove_corrupt_rwlock(root):
        raise DvcBusy(
            f"a killed DVC left its record of locks half written; it is removed, {stage} tries again:\n{last}"
        )
    if any(sign in last for sign in _BUSY):
        raise DvcBusy(f"DVC is busy, {stage} waits:\n{last}")
    raise StageFailed(f"dvc repro {stage} ended with exit code {code}; its last lines:\n{last}")


def _remove_corrupt_rwlock(root: Path) -> bool:
    """Remove DVC's `rwlock` if it is no JSON; False if it is.

    DVC rewrites that file in place, so a `dvc` killed meanwhile leaves it empty, and every later one refuses to start.
    """
    with Repo(str(root)) as repo:
        folder = Path(repo.tmp_dir)
        # who holds this lock is the only one to write the file, so what is broken now stays broken
        guard = make_lock(
            str(folder / RWLOCK_LOCK),
            tmp_dir=str(folder),
            hardlink_lock=repo.config["core"].get("hardlink_lock", False),
        )
        with guard:
            file = folder / RWLOCK_FILE
            try:
                json.loads(file.read_text())
            except ValueError:
                file.unlink()
                return True
            except FileNotFoundError:
                return True
    return False


def changed_corpus(root: Path) -> bool:
    """Whether `data/` is no longer what `data.dvc` says; False where there is no `data.dvc`."""
    if not (root / "data.dvc").exists():
        return False
    command = [sys.executable, "-m", "dvc", "status", "data.dvc"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return "modified:" in done.stdout


def stop_all() -> None:
    """End every running stage with all its descendants, and come back only when they are gone.

    Only what `dvc` runs is told to end; `dvc` then ends by itself. SIGTERM at a millisecond when it writes its `rwlock`
    would leave that file empty, and no later `dvc` would start.
    """
    with _running.lock:
        _running.stopping = True
        commands = set(_running.processes)
    told: set[psutil.Process] = set()
    end = time.monotonic() + GRACE_S
    alive = list(commands)
    while alive and time.monotonic() < end:
        # a dvc that was still reading its graph starts the stage now
        for process in {child for command in alive for child in _family(command)[1:]} - told:
            told.add(process)
            _signal(process, psutil.Process.terminate)
        _, alive = psutil.wait_procs(alive, timeout=0.1)
    _, left = psutil.wait_procs(told, timeout=max(0.0, end - time.monotonic()))
    # what a dying stage started meanwhile goes with it
    stubborn = {relative for process in [*alive, *left] for relative in _family(process)}
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
