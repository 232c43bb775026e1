"""A machine's GPUs and cores, shared out: slots of Prefect's global concurrency limits, for all chains of a server.

A slot is a lease, renewed while its holder lives. Prefect frees one that has run out after a minute, and the embedded
server never does. So each lease is noted on its machine, in a file that is locked as long as its holder lives: whoever
waits finds those of killed chains, and frees them at once.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_API_URL, PREFECT_HOME

from flows import family

GPU_STAGES = frozenset({"train", "sample", "compare"})
CORES = {
    **dict.fromkeys(("decode", "evaluate"), "workers"),
    **dict.fromkeys(("attributes", "train", "sample", "compare"), "threads"),
}
"""By which entry of `runtime` a stage says how many cores it keeps busy without a GPU; the others one."""
SLOTS = "DIFFRETOUCH_GPU_SLOTS"
"""Names of the slots of this machine's GPUs, separated by commas, where the server sees more than one machine."""
CPU = "cpu:"
"""Before the machine's name, the limit of its cores."""
POLL_S = 1.0
LEASE_S = 60
"""The shortest lease that Prefect gives."""
NOTES = "diffretouch-slots"
"""Folder in Prefect's home of the notes of this machine's leases."""


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
    return {**dict.fromkeys(sorted(gpus), 1), f"{CPU}{socket.gethostname()}": min(cores, _cores())}


@contextmanager
def held(
    wanted: Mapping[str, int], root: Path, say: Callable[[str], None], stopping: Callable[[], bool]
) -> Iterator[bool]:
    """Hold so many slots of each limit for what runs in `root`; False where `stopping` said so before all were there.

    A limit that is missing is made: one slot a GPU, as many as cores for a machine. One that is there stays, with as
    many slots as a person has given it.
    """
    with ExitStack() as stack:
        for name, count in wanted.items():
            lease = _wait(name, count, say, stopping)
            if lease is None:
                yield False
                return
            stack.enter_context(_kept(lease, root, say))
        yield True


def _wait(name: str, count: int, say: Callable[[str], None], stopping: Callable[[], bool]) -> UUID | None:
    """A lease of `count` slots, or of all where a person has given the limit fewer; None when it is time to stop."""
    waited = False
    while not stopping():
        with get_client(sync_client=True) as client:
            there = _limit(client, name, _cores() if name.startswith(CPU) else 1)
            lease = _lease(client, name, max(1, min(count, there)))
            freed = lease is None and _free_lost(client)
        if lease is not None:
            return lease
        if freed:
            continue
        if not waited:
            say(f"waiting for {name}, whose {there} slots other stages hold")
        waited = True
        time.sleep(POLL_S)
    return None


def _limit(client: Any, name: str, slots: int) -> int:
    """How many slots the limit has; made with so many where there is none."""
    try:
        return int(client.read_global_concurrency_limit_by_name(name).limit)
    except ObjectNotFound:
        try:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=slots))
        except ObjectAlreadyExists:
            return _limit(client, name, slots)  # another chain was faster
    return slots


def _lease(client: Any, name: str, count: int) -> UUID | None:
    """A lease of so many slots; None where they are not free."""
    try:
        answer = client.increment_concurrency_slots_with_lease([name], count, "concurrency", LEASE_S)
    except httpx.HTTPStatusError as error:
        if error.response.status_code != httpx.codes.LOCKED:
            raise
        return None
    return UUID(answer.json()["lease_id"])


@contextmanager
def _kept(lease: UUID, root: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Renew a lease for the length of the block, noted on this machine, and give it back."""
    ended = threading.Event()
    # with this thread's context, in which Prefect finds its settings
    renewing = threading.Thread(
        target=contextvars.copy_context().run, args=(_renew, lease, ended, say), daemon=True, name=f"lease {lease}"
    )
    with _noted(lease, root):
        renewing.start()
        try:
            yield
        finally:
            ended.set()
            try:
                with get_client(sync_client=True) as client:
                    client.release_concurrency_slots_with_lease(lease)
            except httpx.HTTPError as error:
                say(f"slots could not be given back, their lease runs out within {LEASE_S} s: {error}")


def _renew(lease: UUID, ended: threading.Event, say: Callable[[str], None]) -> None:
    """Until the end, or until the server has given the slots to others; a server that is away is asked again."""
    while not ended.wait(LEASE_S / 4):
        try:
            with get_client(sync_client=True) as client:
                client.renew_concurrency_lease(lease, LEASE_S)
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.GONE and not ended.is_set():
                say("the server was away too long or has forgotten this stage's slots: others may run beside it")
                return
        except httpx.HTTPError:
            continue


@contextmanager
def _noted(lease: UUID, root: Path) -> Iterator[None]:
    """A file that tells of the lease, locked as long as this process lives: no child inherits a descriptor."""
    folder = PREFECT_HOME.value() / NOTES
    folder.mkdir(parents=True, exist_ok=True)
    note, new = folder / f"{lease}.json", folder / f".{lease}"
    with new.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        json.dump({"root": str(root)}, file)
        file.flush()
        new.rename(note)  # only now that it is locked may others see it
        try:
            yield
        finally:
            note.unlink(missing_ok=True)


def _free_lost(client: Any) -> bool:
    """Give back what killed chains of this machine hold; whether there was any.

    What their stages still run keeps its slots, until the next chain in their folder has ended it.
    """
    freed = False
    for note in (PREFECT_HOME.value() / NOTES).glob("*.json"):
        try:
            with note.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if family.members(Path(json.load(file)["root"])):
                    continue
                client.release_concurrency_slots_with_lease(UUID(note.stem))
                note.unlink(missing_ok=True)
                freed = True
        except (BlockingIOError, FileNotFoundError):
            continue  # its holder lives, or has just ended
    if not PREFECT_API_URL.value():
        freed |= _free_expired(client)
    return freed


def _free_expired(client: Any) -> bool:
    """What a server does by itself, and the embedded one leaves undone: give back leases that have run out."""
    # late: the server's modules take a second to import
    from prefect.server.concurrency.lease_storage.filesystem import ConcurrencyLeaseStorage

    expired = asyncio.run(ConcurrencyLeaseStorage().read_expired_lease_ids())
    for lease in expired:
        client.release_concurrency_slots_with_lease(lease)
    return bool(expired)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


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
