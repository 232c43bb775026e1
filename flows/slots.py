"""A machine's GPUs and cores, shared out among chains.

With a server, by slots of Prefect's global concurrency limits: people see and change them on its pages, and those of a
killed chain are free again when its lease has run out. The embedded server never frees them, so without a server they
are locks of the operating system, which go with their holder.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

import httpx
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_API_URL

from flows import dvc_process

GPU_STAGES = frozenset({"train", "sample", "compare"})
CORES = {
    **dict.fromkeys(("decode", "evaluate", "compare"), "workers"),
    **dict.fromkeys(("attributes", "train", "sample"), "threads"),
}
"""By which entry of `runtime` a stage says how many cores it keeps busy without a GPU; the others one."""
SLOTS = "DIFFRETOUCH_GPU_SLOTS"
"""Names of the slots of this machine's GPUs, separated by commas, where the server sees more than one machine."""
MACHINE = "DIFFRETOUCH_MACHINE"
"""The machine's name, where that of the host changes: in containers."""
CPU = "cpu:"
"""Before the machine's name, the limit of its cores."""
SHARE = 0.75
"""Of a machine's cores one stage asks for at most: what needs but one is not to wait for days, nor to be waited for."""
ASK_S, POLL_S = 5, 0.5
"""How long a server is asked for slots, and until it is asked again."""
LEASE_S = 60
"""The shortest lease that Prefect gives."""


def needed(stage: str, root: Path) -> dict[str, int]:
    """Slots a stage must hold by the name of their limit: of GPUs where it uses any, and of this machine's cores."""
    kind = stage.rpartition(":")[2].partition("@")[0]
    runtime = yaml.safe_load((root / "params.yaml").read_text()).get("runtime") or {}
    processes, cores = runtime.get("processes", 1), runtime.get(CORES.get(kind, ""), 1)
    gpus: list[str] = []
    if kind in GPU_STAGES and _on_gpu(runtime.get("device", "cpu")):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(processes)))
        named = os.environ.get(SLOTS) or ",".join(f"gpu:{number.strip()}" for number in visible.split(",")[:processes])
        gpus, cores = [name.strip() for name in named.split(",")], processes
    elif kind == "train":
        cores *= processes
    elif kind == "decode" and runtime.get("executor") == "dask":
        cores = 1  # its photos are decoded by dask's workers
    most = max(1, int(SHARE * len(os.sched_getaffinity(0))))
    machine = os.environ.get(MACHINE) or socket.gethostname()
    return {**dict.fromkeys(sorted(gpus), 1), f"{CPU}{machine}": min(cores, most)}


@contextmanager
def held(
    wanted: Mapping[str, int],
    who: str,
    say: Callable[[str], None],
    stopping: Callable[[], bool] = dvc_process.stopping,
) -> Iterator[None]:
    """Hold so many slots of each limit for `who`.

    A limit that is missing is made: one slot a GPU, one a core. One that is there stays, with as many slots as a person
    has given it; a stage that wants more takes all. Everybody takes them in the same order: GPUs first.

    Raises:
        Stopped: `stopping` said so before all were there.
    """
    logging.getLogger("prefect._internal.concurrency").addFilter(_no_timeouts)
    take = _leased if PREFECT_API_URL.value() else _locked
    with ExitStack() as stack:
        for name, count in wanted.items():
            stack.enter_context(_wait(partial(take, name, count), name, who, say, stopping))
        yield


def _no_timeouts(record: logging.LogRecord) -> bool:
    """Prefect tells of slots that are not free as of an error, each time they are asked for."""
    return "ConcurrencySlotAcquisition" not in record.getMessage()


def _wait(
    take: Callable[[], AbstractContextManager[None]],
    name: str,
    who: str,
    say: Callable[[str], None],
    stopping: Callable[[], bool],
) -> ExitStack:
    """What `take` gives, entered, as soon as it does not raise TimeoutError."""
    said = ""
    while not stopping():
        try:
            with ExitStack() as stack:
                stack.enter_context(take())
                return stack.pop_all()
        except TimeoutError:
            words = f"waiting for {name}, which other stages hold"
        except httpx.HTTPError as error:
            words = f"waiting for {name}: the server does not answer ({error})"
        if words != said:
            say(words)
        said = words
        time.sleep(POLL_S)
    raise dvc_process.Stopped(f"{who} was stopped while it waited for {name}")


@contextmanager
def _leased(name: str, count: int) -> Iterator[None]:
    """Slots of the server's limit; TimeoutError where they are not free within seconds."""
    there = _limit(name)
    if there == 0:
        raise TimeoutError
    with concurrency(
        name,
        min(count, there),
        timeout_seconds=ASK_S,
        lease_duration=LEASE_S,
        strict=True,
        raise_on_lease_renewal_failure=False,
    ):
        yield


def _limit(name: str) -> int:
    """How many slots the limit has; made where there is none."""
    slots = _at_most(name)
    with get_client(sync_client=True) as client:
        try:
            return client.read_global_concurrency_limit_by_name(name).limit
        except ObjectNotFound:
            try:
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=slots))
            except ObjectAlreadyExists:
                return _limit(name)  # another chain was faster
    return slots


def _at_most(name: str) -> int:
    """Slots of a limit that nobody has set."""
    return os.cpu_count() or 1 if name.startswith(CPU) else 1


@contextmanager
def _locked(name: str, count: int) -> Iterator[None]:
    """So many of this machine's locks of that name, of this user; TimeoutError where fewer are free.

    Their descriptors close in whatever a process executes, so only this process holds them.
    """
    folder = Path(tempfile.gettempdir()) / f"diffretouch-slots-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as stack:
        for number in range(_at_most(name)):
            descriptor = os.open(folder / f"{name.replace('/', '_')}.{number}", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            stack.callback(os.close, descriptor)
            count -= 1
            if count == 0:
                break
        if count > 0:
            raise TimeoutError
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
