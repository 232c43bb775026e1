"""`dvc` as a child process: its lines as they come, its meaning afterwards, and an end that leaves nothing running."""

from __future__ import annotations

import contextvars
import fcntl
import json
import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from dvc.lock import make_lock
from dvc.repo import Repo
from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK

from flows import family

Outcome = Literal["ran", "restored", "up to date"]

TAIL_LINES = 20
POLL_S, BRIEF_S = 0.2, 2.0
"""How often DVC's lock is looked at, and how long a stage that begins or ends beside others keeps it at most."""
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
    """Whether children may be started; the lock lets none slip in while the others are ended."""

    lock: threading.Lock
    stopping: bool = False


_running = _Running(threading.Lock())


@dataclass
class _Said:
    """What a child printed, as far as it matters here."""

    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    unlogged: OSError | None = None
    """Why a line could not be written down: the child goes on, or it would block on a pipe that nobody reads."""


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    code: int
    last: str
    """Its last lines."""
    late: bool
    """Whether it took longer than it might, and was ended."""


def repro(stage: str, root: Path, log: Callable[[str], None], timeout_s: float | None = None) -> Outcome:
    """Run `dvc repro --single-item stage` in `root` as `follow` does; raises StageFailed, DvcBusy or Stopped.

    DVC waits for its lock however long another DVC holds it: before the stage, and afterwards, when what hours of
    training made would be lost with a failure.
    """
    outcome: Outcome = "ran"

    def heard(line: str) -> None:
        nonlocal outcome
        if line == f"Stage '{stage}' didn't change, skipping":
            outcome = "up to date"
        elif line.startswith(f"Stage '{stage}' is cached - skipping run"):
            outcome = "restored"
        log(line)

    ended = follow([*family.DVC, "repro", "--single-item", stage], root, stage, heard, timeout_s)
    if ended.late:
        raise StageFailed(f"{stage} took more than {timeout_s:g} s and was ended; its last lines:\n{ended.last}")
    if ended.code == 0:
        return outcome
    if mend_rwlock(ended.last, root):
        raise DvcBusy(
            f"a killed DVC left its record of locks half written; it is removed, {stage} tries again:\n{ended.last}"
        )
    if any(sign in ended.last for sign in _BUSY):
        raise DvcBusy(f"DVC is busy, {stage} waits:\n{ended.last}")
    raise StageFailed(f"dvc repro {stage} ended with exit code {ended.code}; its last lines:\n{ended.last}")


def follow(
    command: list[str], root: Path, name: str, log: Callable[[str], None], timeout_s: float | None = None
) -> Ended:
    """Run `command` in `root`, each line to `log`; Stopped where `stop_all` was called, OSError where `log` failed.

    However it ends - by itself, killed, after `timeout_s` seconds - everything it started is gone afterwards, known by
    `name`. The child stays in this process's group on purpose: a worker that cancels a run signals its group.
    """
    process = _start(command, root, name)
    said, late = _Said(), False
    # with this thread's context, in which Prefect finds its settings
    context = contextvars.copy_context()
    reader = threading.Thread(target=context.run, args=(_read, process.stdout, log, said))
    reader.start()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        late = True
    # a killed dvc leaves its stage running, which holds the pipe too
    family.end(root, name)
    code = process.wait()
    reader.join()
    if _running.stopping:
        raise Stopped(f"{name} was stopped")
    if said.unlogged and not late:
        raise said.unlogged
    return Ended(code, "\n".join(said.tail), late)


def await_lock(root: Path, say: Callable[[str], None]) -> None:
    """Wait until nobody holds DVC's lock in `root`; Stopped where `stop_all` was called meanwhile."""
    started, said = time.monotonic(), False
    while owner := lock_owner(root / ".dvc" / "tmp"):
        if _running.stopping:
            raise Stopped("stopped while another dvc command held DVC's lock")
        if not said and time.monotonic() - started > BRIEF_S:
            said = True
            say(f"another dvc command holds DVC's lock, process {owner}: waiting until it has ended")
        time.sleep(POLL_S)


def _read(stream: IO[str], log: Callable[[str], None], said: _Said) -> None:
    for line in stream:
        text = line.rstrip()
        if text:
            said.tail.append(text)
            try:
                log(text)
            except OSError as error:
                said.unlogged = error


def lock_owner(folder: Path) -> str | None:
    """Who holds the lock of the DVC project whose temporary folder this is: a pid, or "unknown"; None for nobody."""
    lock = folder / "lock"
    if not lock.exists():
        return None
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return lock.read_text(errors="replace").strip() or "unknown"
    return None


def mend_rwlock(said: str, root: Path) -> bool:
    """Where DVC `said` that it cannot read its record of locks, remove that; False where there is nothing to mend."""
    return _CORRUPT in said and _remove_corrupt_rwlock(root)


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


def stop_all(root: Path, name: str | None = None) -> None:
    """End every running stage of `root` with all its descendants, and come back only when they are gone.

    With a `name`, only what is known by it: this process runs nothing else, and others there have stages of their own.
    """
    with _running.lock:
        _running.stopping = True
    family.end(root, name)


def stopping() -> bool:
    """Whether `stop_all` was called."""
    return _running.stopping


def allow() -> None:
    """Let stages start again after `stop_all` (a worker that runs one flow after another)."""
    _running.stopping = False


def _start(command: list[str], root: Path, stage: str) -> subprocess.Popen[str]:
    with _running.lock:
        if _running.stopping:
            raise Stopped("not started: the flow is being stopped")
        return subprocess.Popen(
            command,
            cwd=root,
            env=os.environ | family.mark(root, stage) | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": _code(root)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )


def _code(root: Path) -> str:
    """PYTHONPATH by which a stage runs the code of its own workspace, also in a clone of what is installed."""
    return os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
