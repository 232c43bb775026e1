"""A machine's GPUs and cores, shared out among chains.

With a server, by slots of Prefect's global concurrency limits: people see and change them on its pages, and those of a
killed chain are given back by the next one in its workspace, or free when their lease has run out. The embedded server
never frees them, so without a server they are locks of the operating system, which go with their holder.
"""

from __future__ import annotations

import ctypes
import fcntl
import math
import os
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

import httpx
import yaml
from prefect.settings import PREFECT_API_URL

from flows import dvc_process, leases
from flows.leases import NotFreeError, Wanted, leased

GPU_STAGES = frozenset({"train", "sample", "compare"})
CORES = {
    **dict.fromkeys(("decode", "evaluate", "compare"), "workers"),
    **dict.fromkeys(("attributes", "train", "sample"), "threads"),
}
"""By which entry of `runtime` a stage says how many cores it keeps busy without a GPU; the others one."""
MACHINE = "DIFFRETOUCH_MACHINE"
"""The machine's name, where that of the host changes: in containers."""
CPU, GPU = "cpu:", "gpu:"
"""Before the machine's name: the limit of its cores, and, with the GPU's after it, of a GPU."""
SHARE = 0.75
"""Of a machine's cores one stage asks for at most: what needs but one is not to wait for days, nor to be waited for."""
POLL_S = 1.0
NOTES = Path(".dvc/tmp/flow-slots")
"""A folder a host: what runs on another, or in another container, is not ended here, and may go on."""


def needed(stage: str, root: Path) -> dict[str, int]:
    """Slots a stage must hold by the name of their limit: of GPUs where it uses any, and of this machine's cores."""
    kind = stage.rpartition(":")[2].partition("@")[0]
    runtime = yaml.safe_load((root / "params.yaml").read_text()).get("runtime") or {}
    processes = runtime.get("processes", 1) if kind == "train" else 1
    machine = _plain(os.environ.get(MACHINE) or socket.gethostname())
    gpus: list[str] = []
    if kind in GPU_STAGES and _on_gpu(runtime.get("device", "cpu")):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(processes)))
        gpus = [f"{GPU}{machine}:{_plain(number.strip())}" for number in visible.split(",")[:processes]]
        cores = processes
    elif kind == "decode" and runtime.get("executor") == "dask":
        cores = 1  # its photos are decoded by dask's workers
    else:
        cores = processes * runtime.get(CORES.get(kind, ""), 1)
    return {**dict.fromkeys(sorted(gpus), 1), f"{CPU}{machine}": min(cores, math.ceil(SHARE * _cores()))}


def _plain(name: str) -> str:
    """A name without what a server refuses in one, or a file system."""
    return re.sub(r"[^\w.-]", "_", name)


def _cores() -> int:
    """What this process may use of the machine."""
    return len(os.sched_getaffinity(0))


@contextmanager
def held(
    wanted: Mapping[str, int],
    who: str,
    say: Callable[[str], None],
    stopping: Callable[[], bool] = dvc_process.stopping,
    root: Path | None = None,
) -> Iterator[None]:
    """Hold so many slots of each limit for `who`.

    Whose process is the only one with slots in a workspace names its `root`: killed, its slots are given back by the
    next one there, with `give_back_left`.

    A limit that is missing is made: one slot a GPU, one a core. One that is there stays, with as many slots as a person
    has given it; a stage that wants more takes all. Everybody takes them in the same order: GPUs first.

    Raises:
        Stopped: `stopping` said so before all were there.
    """
    with ExitStack() as stack:
        for name, count in wanted.items():
            most = _cores() if name.startswith(CPU) else 1
            take = (
                partial(leased, Wanted(name, count, most, root and _notes(root)), say)
                if PREFECT_API_URL.value()
                else partial(_locked, name, count, most)
            )
            stack.enter_context(_wait(take, name, who, say, stopping))
        yield


def give_back_left(root: Path, say: Callable[[str], None]) -> None:
    """Free the slots of a server that a killed process has left in the workspace, where nothing of it runs any more."""
    if PREFECT_API_URL.value():
        leases.give_back(_notes(root), say)


def _notes(root: Path) -> Path:
    return root / NOTES / _plain(socket.gethostname())


def _wait(
    take: Callable[[], AbstractContextManager[None]],
    name: str,
    who: str,
    say: Callable[[str], None],
    stopping: Callable[[], bool],
) -> ExitStack:
    """What `take` gives, entered, as soon as it gives it."""
    said = ""
    while not stopping():
        try:
            with ExitStack() as stack:
                stack.enter_context(take())
                return stack.pop_all()
        except NotFreeError as error:
            words = f"waiting for {name}{error}"
        except httpx.HTTPError as error:
            words = f"waiting for {name}: the server does not answer as it should ({error})"
        if words != said:
            say(words)
        said = words
        time.sleep(POLL_S)
    raise dvc_process.Stopped(f"{who} was stopped while it waited for {name}")


@contextmanager
def _locked(name: str, count: int, most: int) -> Iterator[None]:
    """So many of this machine's `most` locks of that name, of this user; NotFreeError where fewer are free.

    Their descriptors close in whatever a process executes, so only this process holds them.
    """
    folder = Path(tempfile.gettempdir()) / f"diffretouch-slots-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as stack:
        left = min(count, most)
        for number in range(most):
            descriptor = os.open(folder / f"{name}.{number}", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            stack.callback(os.close, descriptor)
            left -= 1
            if left == 0:
                break
        else:
            raise NotFreeError(", which other stages hold")
        yield


def _on_gpu(device: str) -> bool:
    """Whether `runtime.device` means a GPU here: torch would tell too, and takes 5 s to import."""
    if device != "auto":
        return device == "cuda"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
