"""A GPU for one stage at a time: slots of Prefect's global concurrency limits, shared by all chains of a server."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

GPU_STAGES = frozenset({"train", "sample", "compare"})
SLOTS = "DIFFRETOUCH_GPU_SLOTS"
"""Names of the slots of this machine's GPUs, separated by commas, where the server sees more than one machine."""
POLL_S = 5
LEASE_S = 60
"""A slot is free again so long after its holder was killed."""


def needed(stage: str, root: Path) -> list[str]:
    """Slots a stage must hold: none for one that does not use the GPU, or where `runtime.device` is none."""
    kind = stage.rpartition(":")[2].partition("@")[0]
    runtime = yaml.safe_load((root / "params.yaml").read_text()).get("runtime") or {}
    if kind not in GPU_STAGES or not _on_gpu(runtime.get("device", "cpu")):
        return []
    if named := os.environ.get(SLOTS):
        return [name.strip() for name in named.split(",")]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(runtime.get("processes", 1))))
    return [f"gpu:{number.strip()}" for number in visible.split(",")][: runtime.get("processes", 1)]


@contextmanager
def held(names: list[str], say: Callable[[str], None], stopping: Callable[[], bool]) -> Iterator[bool]:
    """Hold a slot of each name, made with one slot where there is none; False where `stopping` said so meanwhile."""
    if not names:
        yield True
        return
    for name in names:
        _create(name)
    with ExitStack() as stack:
        waited = False
        while not stopping():
            try:
                stack.enter_context(
                    concurrency(
                        names,
                        timeout_seconds=POLL_S,
                        lease_duration=LEASE_S,
                        strict=True,
                        raise_on_lease_renewal_failure=False,
                    )
                )
            except TimeoutError:
                if not waited:
                    say(f"waiting for {', '.join(names)}, which other stages hold")
                waited = True
            else:
                yield True
                return
        yield False


def _create(name: str) -> None:
    """Create the limit with one slot; one that is there stays, with as many slots as a person has given it."""
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            try:
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
            except ObjectAlreadyExists:
                return  # another chain was faster


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
