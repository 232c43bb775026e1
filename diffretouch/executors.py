"""The same supervised work on this machine or, through dask, on many that share its storage: the same results.

A dask task is a run of items, worked on by a supervised process of its own on the worker's machine: a photo that
crashes it has the same fate and reason as here, and does not take the dask worker with it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import uuid4

from diffretouch.config import Runtime
from diffretouch.dask_client import connected, identity, require_same
from diffretouch.errors import UserError
from diffretouch.processes import supervised
from diffretouch.worker import Reserve

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")
R = TypeVar("R")
LONGEST_RUN = 32
"""Items of one dask task, at most: enough to be worth the start of a process, few enough to be worked on again."""


def run_everywhere(
    work: Callable[[T, Reserve], R],
    items: Sequence[T],
    *,
    runtime: Runtime,
    code: Sequence[str],
    beacon: Path,
    lost: Callable[[T, str], R],
    cpu_seconds: float | None = None,
    setup: Callable[[], None] | None = None,
) -> Iterator[R]:
    """`work(item, reserve)` of every item where `runtime` says: the results, as they come, in no order.

    As `diffretouch.processes.supervised`, with `runtime.workers` and `runtime.memory_gib`. On dask `reserve` does not
    wait (a dask worker's `--nthreads` are the items it works on at once: as many as its machine's memory allows), and
    `beacon` is a file on the storage that all machines share, written for the time of the work: a worker that does not
    see it is refused, and one that sees it no longer stops. `code` names the files and folders of this package that
    results depend on. UserError when the scheduler does not answer or has no worker, or a worker has another version of
    them or of what makes pixels.
    """
    match runtime.executor, runtime.scheduler:
        case "dask", str(address):
            job = _Job(work, cpu_seconds, setup, code, Path.cwd(), beacon.absolute(), uuid4().hex)
            yield from _on_dask(job, items, lost, address)
        case _:
            memory = round(runtime.memory_gib * 2**30)
            yield from supervised(
                work,
                items,
                workers=runtime.workers,
                lost=lost,
                cpu_seconds=cpu_seconds,
                memory_bytes=memory,
                setup=setup,
            )


@dataclass(frozen=True)
class _Lost(Generic[T]):
    """The place of a result, until `lost` is called where the results are wanted."""

    item: T
    reason: str


@dataclass(frozen=True)
class _Job(Generic[T, R]):
    """What all dask tasks of one call share."""

    work: Callable[[T, Reserve], R]
    cpu_seconds: float | None
    setup: Callable[[], None] | None
    code: Sequence[str]
    folder: Path
    beacon: Path
    token: str

    def run(self, items: list[T]) -> list[R | _Lost[T]]:
        """A dask task: the results of `items`. It stops after the next item once the beacon is out."""
        results: list[R | _Lost[T]] = []
        setup = partial(_enter, self.folder, self.setup)
        work: Callable[[T, Reserve], R | _Lost[T]] = self.work
        for result in supervised(work, items, workers=1, lost=_Lost, cpu_seconds=self.cpu_seconds, setup=setup):
            results.append(result)
            if not self.lit():
                raise RuntimeError(f"{self.beacon} is out: whoever asked for this work has stopped")
        return results

    def lit(self) -> bool:
        """Whether this machine sees the beacon of this very call."""
        return self.beacon.exists() and self.beacon.read_text() == self.token

    def look(self) -> tuple[bool, dict[str, str]]:
        """On a dask worker: whether it sees the beacon, and what it would run."""
        return self.lit(), identity(self.code)


def _enter(folder: Path, setup: Callable[[], None] | None) -> None:
    os.chdir(folder)
    if setup is not None:
        setup()


def _on_dask(job: _Job[T, R], items: Sequence[T], lost: Callable[[T, str], R], address: str) -> Iterator[R]:
    if not items:
        return
    with connected(address) as client, _lit(job):
        from distributed import KilledWorker, as_completed

        _check(client, job, address)
        threads = sum(client.nthreads().values())
        length = min(LONGEST_RUN, math.ceil(len(items) / (2 * threads)))
        runs = [list(items[first : first + length]) for first in range(0, len(items), length)]
        tasks = {client.submit(job.run, run, pure=False): run for run in runs}
        suspects: list[T] = []
        try:
            for task in as_completed(tasks, loop=client.loop):
                run = tasks.pop(task)
                try:
                    yield from _told(task.result(), lost)
                except KilledWorker:
                    suspects += run
            # dask suspects all that its worker had been given; alone, it is this item that killed it
            for item in suspects:
                try:
                    yield from _told(client.submit(job.run, [item], pure=False).result(), lost)
                except KilledWorker:
                    yield lost(item, "the dask worker that was reading it was killed, most likely for want of memory")
        except CancelledError as error:
            raise UserError(
                f"the dask scheduler {address} went away during the work: start it again (`dask scheduler`, "
                f"`dask worker {address} --nthreads 4` on every machine), then run the same command again"
            ) from error


def _told(results: list[R | _Lost[T]], lost: Callable[[T, str], R]) -> Iterator[R]:
    for result in results:
        yield lost(result.item, result.reason) if isinstance(result, _Lost) else result


@contextmanager
def _lit(job: _Job[Any, Any]) -> Iterator[None]:
    """The beacon's time; a job of the same beacon that was not stopped properly ends with its beginning."""
    job.beacon.parent.mkdir(parents=True, exist_ok=True)
    job.beacon.write_text(job.token)
    try:
        yield
    finally:
        job.beacon.unlink(missing_ok=True)


def _check(client: Client, job: _Job[Any, Any], address: str) -> None:
    """UserError unless every worker would run what runs here, and sees the beacon."""
    here = identity(job.code)
    for worker, look in client.run(job.look, on_error="return").items():
        require_same(here, worker, look if isinstance(look, Exception) else look[1], address)
        if not look[0]:
            raise UserError(
                f"dask worker {worker} does not see {job.beacon}: the storage of this folder must be mounted there "
                f"under the same path; then start `dask worker {address} --nthreads 4` there again"
            )
