"""The process that trains in one of the ways that benchmarks.train compares.

`python -m benchmarks._train_worker JSON`, the fields of `Asked`, says what it has when it is warm, then measures for as
many seconds as each line on stdin names; between two such windows the loop stands still, in the middle of its training.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks._train_ways import ENDLESS, model_flops, new_objective, train_ours, train_plainly
from diffretouch.config import load
from diffretouch.devices import compute_alike
from diffretouch.training.loop import LOOK_EVERY
from diffretouch.training.ranks import new_accelerator

WARM_UP = 2
"""Looks at the losses before the first window."""


@dataclass(frozen=True)
class Asked:
    """What one process is to do."""

    profile: str
    """A params file."""
    control_loss: str
    batch: int
    threads: int
    precision: str
    plain: bool
    """The plain eager loop, else the project's."""
    compiled: bool


class Enough(BaseException):
    """No further window is asked for."""


class Clock:
    """Measures the windows asked for on stdin, from within a loop that tells it of its steps."""

    def __init__(self, device: torch.device, facts: dict[str, Any]) -> None:
        self.cuda, self.facts = device.type == "cuda", facts
        self.looks = self.steps = 0
        self.start = self.used = self.seconds = 0.0

    def tick(self, steps: int) -> None:
        """`steps` more steps are done and waited for."""
        now = time.perf_counter()
        self.looks += 1
        self.steps += steps
        if self.looks < WARM_UP:
            return
        if self.looks == WARM_UP:
            _say(self.facts)
        elif now - self.start < self.seconds:
            return
        else:
            spent = {"seconds a step": now - self.start, "CPU seconds a step": time.process_time() - self.used}
            _say({name: s / self.steps for name, s in spent.items()} | {"steps": self.steps, "GiB": self._gib()})
        line = sys.stdin.readline()
        if not line:
            raise Enough
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        self.seconds, self.steps = float(line), 0
        self.start, self.used = time.perf_counter(), time.process_time()

    def _gib(self) -> float:
        if self.cuda:
            return torch.cuda.max_memory_allocated() / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Train until no further window is asked for."""
    asked = Asked(**json.loads(sys.argv[1]))
    try:
        train(asked)
    except torch.OutOfMemoryError:
        _say({"out of memory": True})
    except Enough:
        pass


def train(asked: Asked) -> None:
    params = load(Path(asked.profile))
    torch.set_num_threads(asked.threads)
    device = new_accelerator(params.runtime.device).device
    if not asked.plain:
        compute_alike(device)
    changes = {
        "batch_size": asked.batch,
        "accumulation": 1,
        "control_loss": asked.control_loss,
        "precision": asked.precision,
        "divergence": float(ENDLESS),
    }
    settings = params.train.model_copy(update=changes)
    objective = new_objective(settings, params.attributes.size, device, plain=asked.plain)
    facts = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "parameters": sum(p.numel() for part in objective.pipe.components.values() for p in weights(part)),
        "flops": None if asked.plain else model_flops(objective),
    }
    if params.runtime.gradient_checkpointing:
        objective.pipe.unet.enable_gradient_checkpointing()
    if asked.compiled:
        objective.pipe.unet.compile()
    clock = Clock(device, facts)
    loop = train_plainly if asked.plain else train_ours
    loop(objective, 1 if device.type == "cpu" else LOOK_EVERY, clock.tick)


def weights(part: Any) -> list[torch.nn.Parameter]:
    """Of a pipeline's component; a scheduler has none."""
    return list(part.parameters()) if isinstance(part, torch.nn.Module) else []


def _say(facts: dict[str, Any]) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
