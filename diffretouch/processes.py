"""Work on many photos at once, in processes of their own."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from diffretouch.errors import UserError

T = TypeVar("T")
R = TypeVar("R")


def map_in_processes(work: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[R]:
    """`work` of each of `items`, in their order; in this process for one worker. UserError when a process is killed."""
    if min(workers, len(items)) <= 1:
        yield from map(work, items)
        return
    # spawn: LibRaw's OpenMP and torch's threads deadlock in a forked child
    with ProcessPoolExecutor(
        min(workers, len(items)), mp_context=get_context("spawn"), initializer=_leave_ctrl_c_to_the_parent
    ) as pool:
        try:
            yield from pool.map(work, items)
        except BrokenProcessPool as error:
            raise UserError(
                f"one of {workers} worker processes was killed, most likely for want of memory: set runtime.workers in "
                "params.yaml to 1 and run the same command again"
            ) from error


def _leave_ctrl_c_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
