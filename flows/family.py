"""Everything a stage runs, found by a mark in its environment and ended as one.

Why a mark and not recorded pids: children inherit it, whoever their parent is by now, so what a killed `dvc` or a
killed flow left behind is found too; it is there before the stage's first instruction, and no reused pid carries it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

MARK = "DIFFRETOUCH_FLOW_STAGE"
FLOW = "DIFFRETOUCH_FLOW"
"""Pid and birth of the process that imported `flows`, in the environment of all it starts."""
EMBEDDED = "PREFECT__SERVER_EPHEMERAL"
SERVER = "prefect.server.api.server:create_app"
DVC = (sys.executable, "-m", "dvc", "--wait-for-lock")
"""How DVC is called for a stage, up to its own command."""
GRACE_S = 25
"""What a stage gets to save its state after SIGTERM: Prefect kills what is left of a cancelled run after 30 s."""


_told: set[psutil.Process] = set()
"""Who has had SIGTERM, whichever thread sent it: none is to have it twice."""


class Unstoppable(Exception):
    """A process did not go even after SIGKILL (a dead disk or network folder); nothing may start beside it."""


def mark(root: Path, stage: str) -> dict[str, str]:
    """What to add to the environment of a stage's processes."""
    return {MARK: f"{root}\n{stage}"}


def members(root: Path, stage: str | None = None) -> list[psutil.Process]:
    """Living processes of `stage` of the workspace `root`; of all its stages without a name."""
    found = []
    for process in psutil.process_iter():
        try:
            place, _, name = process.environ().get(MARK, "").partition("\n")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # gone meanwhile, or somebody else's: neither can be told to end
        if place == str(root) and stage in (None, name):
            found.append(process)
    return found


def places(folder: Path) -> list[Path]:
    """The workspaces below `folder` in which something runs."""
    found = set()
    for process in psutil.process_iter():
        try:
            place = process.environ().get(MARK, "").partition("\n")[0]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if place and folder in Path(place).parents:
            found.add(Path(place))
    return sorted(found)


def end_lost_servers() -> int:
    """End embedded Prefect servers whose flow was killed, of this user and machine; how many there were.

    A flow that ends by itself takes its server along.
    """
    lost = 0
    for process in psutil.process_iter():
        try:
            around = process.environ()
            pid, _, born = around.get(FLOW, "").partition(" ")
            embedded = EMBEDDED in around and SERVER in process.cmdline()
            if embedded and pid.isdigit() and _sees_the_same(process.pid) and birth(int(pid)) != born:
                _signal(process, psutil.Process.terminate)
                lost += 1
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or somebody else's
    return lost


def birth(pid: int) -> str:
    """When a living process began, in the kernel's ticks, which no change of the clock moves; empty for any other."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _sees_the_same(pid: int) -> bool:
    """Whether a process knows others by the numbers known here; in a container it does not."""
    return Path(f"/proc/{pid}/ns/pid").readlink() == Path("/proc/self/ns/pid").readlink()


def end(root: Path, stage: str | None = None, grace_s: float = GRACE_S) -> int:
    """End them, and come back only when they are gone; how many there were.

    `dvc` itself ends when its stage has: SIGTERM at a millisecond when it writes its `rwlock` would leave that file
    empty. What is left after `grace_s` seconds is killed, `dvc` too.
    """
    seen: set[psutil.Process] = set()
    start = time.monotonic()
    while alive := members(root, stage):
        passed = time.monotonic() - start
        if passed > 2 * grace_s + 5:
            names = ", ".join(str(process.pid) for process in alive)
            raise Unstoppable(f"processes {names} of {root} cannot be killed; see `ps -o pid,stat,wchan:30,args`")
        for process in alive:
            if passed > grace_s:
                _signal(process, psutil.Process.kill)
            elif process not in _told and not is_dvc(process):
                _told.add(process)
                _signal(process, psutil.Process.terminate)
        seen.update(alive)
        time.sleep(0.1)
    _told.difference_update(seen)
    return len(seen)


def is_dvc(process: psutil.Process) -> bool:
    """Whether it is the `dvc repro` of a stage, and nothing that it runs."""
    try:
        return tuple(process.cmdline()[1:5]) == (*DVC[1:], "repro")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _signal(process: psutil.Process, action: Callable[[psutil.Process], None]) -> None:
    try:
        action(process)  # psutil refuses where the pid is another process's by now
    except psutil.NoSuchProcess:
        return  # it ended by itself meanwhile, which is what was wanted
