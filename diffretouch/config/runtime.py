"""The section `runtime`: how the work is done."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from diffretouch.config.base import Positive, Section


class Runtime(Section):
    """How the work is done, not what: no stage tracks it, but for `processes`, which train does. Threads and device may
    move the last digits of a result.
    """

    device: Literal["auto", "cpu", "cuda"]
    threads: Positive
    """CPU threads of torch in one process."""
    workers: Positive
    """Processes that decode or measure at the same time."""
    processes: Positive
    """Processes that train together on this machine, one a GPU (or CPU, over gloo), each with a batch of its own: with
    more of them a step sees more. Arms of compare train in one; several machines: `accelerate launch`."""
    compile: bool
    """torch.compile the U-Net for training: slow to start, pays on a GPU."""
    gradient_checkpointing: bool
    """Compute activations twice instead of keeping them: less memory, a third more time."""
    keep_checkpoints: Positive
    """Resumable states of a training that are kept at a time."""
    memory_gib: float = Field(gt=0)
    """Photos are decoded at the same time only while their memory together stays below this (process executor)."""
    executor: Literal["process", "dask"]
    """Where decode's photos are worked on: processes of this machine, or the workers of a dask scheduler."""
    scheduler: str | None
    """Address of the dask scheduler, tcp://host:8786; its workers see this folder under the same path."""

    @model_validator(mode="after")
    def _scheduler(self) -> Runtime:
        if self.executor == "dask" and self.scheduler is None:
            raise ValueError(
                "executor dask needs a scheduler address: start `dask scheduler` and, on every machine, "
                "`dask worker ADDRESS --nthreads 4` (photos at once there), then set scheduler: tcp://host:8786"
            )
        return self
