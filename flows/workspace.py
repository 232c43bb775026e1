"""One chain at a time in a workspace, and nothing of an earlier one beside it.

The lock is the operating system's (flock on a file in `.dvc/tmp`): it goes with the process that holds it, however that
ends, and no child inherits it. Who has it takes over a workspace where nothing runs and DVC's files can be read.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import re
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml

from diffretouch.errors import UserError
from diffretouch.files.atomic import whole, write_json
from flows import console, family

LOCK, HOLDER, KEPT = "flow.lock", "flow.json", "flow-dvc.lock"
POLL_S = 1.0
CONFLICT = re.compile(rb"^<{7}( |$)", re.MULTILINE)
"""Where git began one side of a merge that it could not finish."""


class Busy(Exception):
    """Another chain runs in the workspace; the message says which."""


class NoWorkspace(Exception):
    """The folder is no DVC project."""


@contextmanager
def hold(root: Path, wait: bool = False, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Be the only chain in `root` for the length of the block; Busy where another is, unless told to `wait`.

    Ends first what an earlier, killed chain left running, and mends what it left half written. `say` gets a line about
    each of these; stderr without one. UserError as `mend`.
    """
    tell = say or console.say
    folder = root / ".dvc" / "tmp"
    if not folder.parent.is_dir():
        raise NoWorkspace(f"{root} is no DVC project: it has no .dvc. Run this in the repository, or name it: --root")
    folder.mkdir(exist_ok=True)
    # Python's descriptors close in whatever a process executes, so only this process holds it
    descriptor = _open(folder / LOCK)
    try:
        _acquire(descriptor, folder, wait, tell)
        if machine := _killed_elsewhere(folder):
            tell(
                f"the last run here was killed on {machine}; what it may have left running there cannot be seen from "
                f"here: `grep -lza {shlex.quote(f'{family.MARK}={root}')} /proc/[0-9]*/environ` there finds it"
            )
        write_json(folder / HOLDER, _myself())
        if count := family.end(root):
            tell(f"ended {count} processes that an earlier run in {root} had left")
        if count := family.end_lost_servers():
            tell(f"ended {count} embedded servers of flows that were killed")
        try:
            if mend(root):
                tell("dvc.lock was half written by a killed DVC; it is again what it was before")
            yield
        finally:
            (folder / HOLDER).unlink(missing_ok=True)  # so that only a killed run leaves it
    finally:
        os.close(descriptor)


def holder(root: Path) -> str | None:
    """Who runs a chain in `root` now, in words; None where nobody does."""
    try:
        descriptor = os.open(root / ".dvc" / "tmp" / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _who(root / ".dvc" / "tmp")
    finally:
        os.close(descriptor)
    return None


def keep(root: Path) -> None:
    """Remember `dvc.lock` as it is, if it can be read: DVC rewrites it in place, and a kill meanwhile leaves half."""
    content = _readable(root / "dvc.lock")
    if content is not None:
        with whole(root / ".dvc" / "tmp" / KEPT) as temporary:
            temporary.write_bytes(content)


def mend(root: Path) -> bool:
    """Put the remembered `dvc.lock` in place of one that is no lock file; whether that was needed and possible.

    UserError where it is none because a merge is not finished: that is a person's work, and stays.
    """
    if (root / "dvc.lock").exists() and CONFLICT.search((root / "dvc.lock").read_bytes()):
        raise UserError(
            f"{root / 'dvc.lock'} holds git's conflict markers: finish the merge first. Take one side, `git checkout "
            "--ours dvc.lock` (or --theirs), then `git add dvc.lock` and `git commit`; what this side did not make is "
            "run, or taken from the cache, next time"
        )
    kept = _readable(root / ".dvc" / "tmp" / KEPT)
    if kept is None or not (root / "dvc.lock").exists() or _readable(root / "dvc.lock") is not None:
        return False
    with whole(root / "dvc.lock") as temporary:
        temporary.write_bytes(kept)
    return True


def _readable(file: Path) -> bytes | None:
    """Its content if it is a lock file of DVC, None otherwise."""
    try:
        content = file.read_bytes()
        tree = yaml.load(content, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (FileNotFoundError, yaml.YAMLError):
        return None
    return content if isinstance(tree, dict) and "schema" in tree else None


def _open(lock: Path) -> int:
    """A descriptor to lock exclusively: NFS wants one that writes, and another user's file may let us only read."""
    try:
        return os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        return os.open(lock, os.O_RDONLY)


def _acquire(descriptor: int, folder: Path, wait: bool, tell: Callable[[str], None]) -> None:
    waiting = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not wait:
                raise Busy(f"{_who(folder)}. Wait for it with --wait, or end it with SIGTERM") from None
        if not waiting:
            tell(f"{_who(folder)}; waiting until it has ended")
            waiting = True
        time.sleep(POLL_S)


def _myself() -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    command = shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]])
    born = psutil.Process().create_time()
    return {"machine": socket.gethostname(), "pid": os.getpid(), "started": born, "since": now, "command": command}


def _killed_elsewhere(folder: Path) -> str | None:
    """The machine of the last holder, where that was another and the holder did not end by itself."""
    try:
        machine = json.loads((folder / HOLDER).read_text()).get("machine")
    except FileNotFoundError:
        return None
    return machine if machine != socket.gethostname() else None


def _who(folder: Path) -> str:
    """Who holds the lock, in words."""
    place = folder.parent.parent
    try:
        holder = json.loads((folder / HOLDER).read_text())
        here = holder.get("machine", socket.gethostname()) == socket.gethostname()
        known = not here or psutil.Process(holder["pid"]).create_time() == holder["started"]
    except (FileNotFoundError, psutil.NoSuchProcess):
        known = False
    if not known:
        return f"another chain runs in {place} (it has only just started)"
    where = "" if here else f" of {holder['machine']}"
    return (
        f"another chain runs in {place}: process {holder['pid']}{where} since {holder['since']}, `{holder['command']}`"
    )
