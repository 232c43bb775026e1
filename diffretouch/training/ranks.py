"""Processes that train together: started here for one machine, or by `accelerate launch` for several."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from types import FrameType

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DynamoBackend,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    TorchDynamoPlugin,
)

from diffretouch.devices import pick_device
from diffretouch.errors import ConfigError, UserError
from diffretouch.worker import die_with

WAIT = timedelta(hours=6)
"""The others wait while the first process reads pictures or validates."""
BUCKET_MB = 250
"""Gradients are shared in pieces so large: 25, the default, would cut a compiled U-Net into some 60 pieces."""
GRACE_S = 28.0
PARENT = "DIFFRETOUCH_PARENT"


def is_rank() -> bool:
    """Whether this process is one of several, started by `together` or by `accelerate launch`."""
    return "LOCAL_RANK" in os.environ


def new_accelerator(device: str) -> Accelerator:
    """This process among those that train together; `device` is `runtime.device`.

    params.yaml alone says what is computed in bf16, accumulated and compiled, whatever `accelerate config` was told on
    this machine.
    """
    if parent := os.environ.get(PARENT):
        die_with(int(parent))
    cpu = pick_device(device).type == "cpu"
    return Accelerator(
        cpu=cpu,
        mixed_precision="no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        dynamo_plugin=TorchDynamoPlugin(backend=DynamoBackend.NO),
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=WAIT),
            DistributedDataParallelKwargs(bucket_cap_mb=BUCKET_MB, gradient_as_bucket_view=True),
        ],
    )


def agreed(accelerator: Accelerator, own: int) -> int:
    """The largest number that any of the processes has, so that all of them do the same: the signal that one got."""
    if accelerator.num_processes == 1:
        return own
    return int(accelerator.gather(torch.tensor([own], device=accelerator.device)).max())


def meet(accelerator: Accelerator) -> None:
    """Wait until all processes are here.

    Not by accelerate's own barrier, which asks for a GPU wherever torch was built for one, though all is on the CPU.
    """
    agreed(accelerator, 0)


def together(processes: int, command: list[str], device: str) -> None:
    """Run the package's `command` in `processes` ranks of this machine, and end as they do.

    Raises:
        ConfigError: more processes than GPUs.
        UserError: a rank failed; what it said stands above.
        SystemExit: 128 + signal, when asked to stop: the ranks save and stop first.
    """
    if pick_device(device).type == "cuda" and processes > torch.cuda.device_count():
        raise ConfigError(
            f"runtime.processes is {processes}, but this machine has {torch.cuda.device_count()} GPUs: one process each"
        )
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    run = [sys.executable, "-m", "diffretouch", *command]
    ranks = [
        subprocess.Popen(
            run, env={**os.environ, **shared, "RANK": str(i), "LOCAL_RANK": str(i), PARENT: str(os.getpid())}
        )
        for i in range(processes)
    ]
    asked: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        for rank in ranks:
            if rank.poll() is None:
                rank.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        codes = _wait(ranks, asked)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise SystemExit(128 + asked[0])
    if any(codes):
        which, code = next((i, code) for i, code in enumerate(codes) if code not in (0, None))
        raise UserError(f"process {which} of {processes} that trained together ended with exit code {code}: see above")


def _wait(ranks: list[subprocess.Popen[bytes]], asked: list[int]) -> list[int | None]:
    """Their exit codes, once all have ended, one has failed, or the time to stop in is over."""
    deadline = float("inf")
    while any(rank.poll() is None for rank in ranks):
        if any(rank.poll() not in (None, 0) for rank in ranks) and not asked:
            break
        if asked:
            deadline = min(deadline, time.monotonic() + GRACE_S)
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return [rank.poll() for rank in ranks]
