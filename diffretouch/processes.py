"""Work on many items at once, in processes that may crash, hang or be killed without ending the whole."""

from __future__ import annotations

import math
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.reduction import ForkingPickler
from typing import Generic, TypeVar

from diffretouch.errors import UserError
from diffretouch.worker import Reserve, Worker

T = TypeVar("T")
R = TypeVar("R")
CLOCK_FACTOR = 10.0
"""An item may take this many times its CPU seconds by the clock, not counting its wait for memory."""


def supervised(
    work: Callable[[T, Reserve], R],
    items: Sequence[T],
    *,
    workers: int,
    lost: Callable[[T, str], R],
    cpu_seconds: float | None = None,
    memory_bytes: int | None = None,
    setup: Callable[[], None] | None = None,
) -> Iterator[R]:
    """`work(item, reserve)` of every item in up to `workers` processes: the results, as they come, in no order.

    `work`, `setup` (run once in every process) and the items are pickled: functions are those of importable modules.
    An item that ends its process is tried once more, alone and in a new process, so that neither the memory of others
    nor what an earlier item broke is its undoing; then its result is `lost(item, reason)`, called in this process.
    One that takes more than `cpu_seconds` of CPU time is lost at once. After `reserve(bytes)` an item goes on when all
    that have reserved stay within `memory_bytes` together, or no other holds any; first come, first served.
    An exception that `work` raises is raised here with the child's traceback as a note. However this ends, no process
    is left. UserError when a process dies before it could begin.
    """
    yield from _Pool(work, items, workers, lost, cpu_seconds, memory_bytes, setup).results()


def map_in_processes(work: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[R]:
    """`work` of each of `items`, in their order; in this process for one worker. UserError when a process is killed."""
    if min(workers, len(items)) <= 1:
        yield from map(work, items)
        return

    def give_up(_: object, reason: str) -> tuple[int, R]:
        raise UserError(
            f"one of {workers} worker processes was lost, and again on the same item ({reason}): if memory ran out, "
            "set runtime.workers in params.yaml to 1 and run the same command again"
        )

    done: dict[int, R] = {}
    turn = 0
    for number, result in supervised(partial(_numbered, work), list(enumerate(items)), workers=workers, lost=give_up):
        done[number] = result
        while turn in done:
            yield done.pop(turn)
            turn += 1


def _numbered(work: Callable[[T], R], numbered: tuple[int, T], _: Reserve) -> tuple[int, R]:
    number, item = numbered
    return number, work(item)


class Memory:
    """Which worker holds how many bytes, and who waits for how many; `limit` None bounds nothing."""

    def __init__(self, limit: int | None) -> None:
        self.limit = math.inf if limit is None else limit
        self.held: dict[Worker, int] = {}
        self.waiting: deque[tuple[Worker, int]] = deque()

    def release(self, worker: Worker) -> None:
        """The item of `worker` is at its end."""
        self.held.pop(worker, None)
        self.waiting = deque(entry for entry in self.waiting if entry[0] is not worker)

    def grants(self) -> Iterator[Worker]:
        """Workers that may go on now, noted as holders."""
        while self.waiting and (not self.held or sum(self.held.values()) + self.waiting[0][1] <= self.limit):
            worker, size = self.waiting.popleft()
            self.held[worker] = size
            yield worker


class _Pool(Generic[T, R]):
    """The workers and what is left to do; `supervised` says what it does."""

    def __init__(
        self,
        work: Callable[[T, Reserve], R],
        items: Sequence[T],
        workers: int,
        lost: Callable[[T, str], R],
        cpu_seconds: float | None,
        memory_bytes: int | None,
        setup: Callable[[], None] | None,
    ) -> None:
        self.task = bytes(ForkingPickler.dumps((work, setup, cpu_seconds)))
        self.items, self.size, self.lost, self.cpu_seconds = items, workers, lost, cpu_seconds
        self.patience = math.inf if cpu_seconds is None else CLOCK_FACTOR * cpu_seconds
        self.memory = Memory(memory_bytes)
        self.workers: list[Worker] = []
        self.queue = deque(range(len(items)))
        self.again: deque[int] = deque()
        self.tried: set[int] = set()

    def results(self) -> Iterator[R]:
        """Everything, as it comes."""
        results: list[R] = []
        try:
            while self._hand_out():
                yield from results
                results = self._listen()
            yield from results
        finally:
            self._dismiss()

    def _hand_out(self) -> bool:
        """Give every idle worker an item and start those that are missing; False when all is done."""
        if not self.queue and self.again and all(worker.item is None for worker in self.workers):
            self._dismiss()
            self.queue.append(self.again.popleft())
        for worker in self.workers:
            if self.queue and worker.ready and worker.item is None:
                worker.item = self.queue.popleft()
                worker.deadline = time.monotonic() + self.patience
                worker.tell(self.items[worker.item])
        free = sum(worker.item is None for worker in self.workers)
        self.workers += [Worker(self.task) for _ in range(min(len(self.queue) - free, self.size - len(self.workers)))]
        return bool(self.queue) or any(worker.item is not None for worker in self.workers)

    def _listen(self) -> list[R]:
        """Wait until some workers have spoken or died, or one is overdue: the results that came."""
        due = min(worker.deadline for worker in self.workers)
        spoken = wait([worker.pipe for worker in self.workers], None if due == math.inf else due - time.monotonic())
        for worker in self.workers:
            if worker.deadline < time.monotonic():
                worker.overdue, worker.deadline = True, math.inf
                worker.kill()
        results = [r for worker in list(self.workers) if worker.pipe in spoken for r in self._hear(worker)]
        for worker in self.memory.grants():
            worker.deadline = time.monotonic() + self.patience
            worker.tell(None)
        return results

    def _hear(self, worker: Worker) -> list[R]:
        """Take in one message; at most one result."""
        match worker.hear():
            case ("ready",):
                worker.ready = True
            case ("memory", size):
                worker.deadline = math.inf
                self.memory.waiting.append((worker, size))
            case ("result", value):
                worker.item, worker.deadline = None, math.inf
                self.memory.release(worker)
                return [value]
            case ("error", error, text):
                error.add_note(f"raised in a worker process:\n{text}")
                raise error
            case None:
                return self._bury(worker)
        return []

    def _bury(self, worker: Worker) -> list[R]:
        """A worker has died: its item is tried again or lost."""
        self.workers.remove(worker)
        self.memory.release(worker)
        code = worker.fate()
        reason = self._reason(code, overdue=worker.overdue)
        if not worker.ready:
            raise UserError(
                f"a worker process could not start: {reason}. What it said stands above; if memory ran out, set "
                "runtime.workers in params.yaml to 1 and run the same command again"
            )
        if worker.item is None:
            return []
        if code == -signal.SIGPROF or worker.item in self.tried:
            return [self.lost(self.items[worker.item], reason)]
        self.tried.add(worker.item)
        self.again.append(worker.item)
        return []

    def _reason(self, code: int, *, overdue: bool) -> str:
        """A dead worker's exit code in a person's words."""
        if code == -signal.SIGPROF:
            return f"it took more than {self.cpu_seconds:g} s of CPU time"
        if overdue:
            return f"it took more than {self.patience:g} s"
        if code == -signal.SIGKILL:
            return "the process reading it was killed (SIGKILL), most likely for want of memory"
        if code < 0:
            names = {int(number): number.name for number in signal.Signals}
            return f"the process reading it died of {names.get(-code, f'signal {-code}')}"
        return f"the process reading it ended with exit code {code}"

    def _dismiss(self) -> None:
        """End all workers and wait until they are gone."""
        for worker in self.workers:
            worker.dismiss()
        for worker in self.workers:
            worker.fate()
        self.workers.clear()
