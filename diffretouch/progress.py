"""Progress of long work: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")
LOG_EVERY_S = 10.0


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield `items`, showing how many of `total` are done, how fast, and how long the rest will take."""
    if sys.stderr.isatty():
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, transient=False) as bar:
            yield from bar.track(items, total=total, description=what)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last > LOG_EVERY_S or done == total:
            last, rate = now, done / max(now - start, 1e-9)
            print(
                f"{what}: {done}/{total}, {rate:.1f}/s, {(total - done) / rate:.0f} s left", file=sys.stderr, flush=True
            )
