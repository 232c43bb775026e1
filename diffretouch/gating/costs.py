"""What a challenger costs: seconds a photo and memory, measured in a process of its own on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch

from diffretouch.config import Params, Sample
from diffretouch.devices import pick_device
from diffretouch.errors import UserError
from diffretouch.files.pictures import read_srgb
from diffretouch.gating.sides import Side
from diffretouch.gating.verdict import Reason
from diffretouch.processes import supervised
from diffretouch.seeds import generator
from diffretouch.worker import Reserve

STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Cost:
    """Of one photo at a time."""

    seconds: float
    """Median over the photos, reading them not counted."""
    gib: float
    """The most memory it held: of the GPU, or of the process where there is none."""
    where: str
    """What it ran on, in words."""


@dataclass(frozen=True)
class _Job:
    model: Path
    photos: tuple[Path, ...]
    sample: Sample
    device: str
    threads: int


def judge_costs(side: Side, params: Params) -> list[Reason]:
    """The rules `cost: speed` and `cost: memory`; nothing runs where neither is asked for."""
    asked = params.gate.costs
    if asked.seconds_a_photo is None and asked.peak_gib is None:
        return [Reason("cost: speed and memory", "no ceilings", "not measured", None)]
    cost = measure(side, params)
    reasons = []
    for rule, ceiling, found, unit in (
        ("cost: speed", asked.seconds_a_photo, cost.seconds, "s a photo"),
        ("cost: memory", asked.peak_gib, cost.gib, "GiB at most"),
    ):
        words = "no ceiling" if ceiling is None else f"no more than {ceiling:g} {unit.removesuffix(' at most')}"
        passed = None if ceiling is None else found <= ceiling
        reasons.append(Reason(rule, words, f"{found:.2f} {unit} on {cost.where}", passed))
    return reasons


def measure(side: Side, params: Params) -> Cost:
    """Retouch test photos one by one; UserError when the process is lost, most likely for want of memory."""
    chosen = side.photos[: params.gate.costs.photos]
    photos = tuple(side.work("decode") / side.manifest.at[photo, "input"] for photo in chosen)
    runtime = params.runtime
    job = _Job(side.model, photos, params.sample, runtime.device, runtime.threads)
    return next(iter(supervised(_run, [job], workers=1, lost=partial(_lost, side.model))))


def _lost(model: Path, _: _Job, reason: str) -> Cost:
    raise UserError(f"{model} cannot be run here to measure gate.costs: {reason}")


@torch.no_grad()
def _run(job: _Job, _: Reserve) -> Cost:
    from diffretouch.sampling.retouching import open_model  # heavy, and only this process needs it

    torch.set_num_threads(job.threads)
    device = pick_device(job.device)
    took = []
    try:
        pipe = open_model(job.model, job.sample, device)
        for path in (job.photos[0], *job.photos):
            photo = torch.from_numpy(read_srgb(path)).permute(2, 0, 1)
            start = time.perf_counter()
            pipe(
                [photo],
                torch.zeros(1, 4),
                num_inference_steps=job.sample.steps,
                last_timestep=job.sample.last_timestep,
                generator=[generator(job.sample.seed, "gate", path.name)],
            )
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            took.append(time.perf_counter() - start)
    except torch.OutOfMemoryError as error:
        raise UserError(f"{job.model} cannot be run here to measure gate.costs: {error}") from error
    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{job.threads} CPU thread{'s' if job.threads > 1 else ''}"
    )
    return Cost(median(took[1:]), _peak(device) / 2**30, where)  # the first warms up


def _peak(device: torch.device) -> int:
    """Bytes. getrusage would tell the parent's memory, too: a process starts with what its parent held (VmHWM not)."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
