"""Progress of long work: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

T = TypeVar("T")
LOG_EVERY_S = 10.0


def track(items: Iterable[T], what: str, total: int, unit: str = "", done: int = 0) -> Iterator[T]:
    """Yield `items`, showing how many of `total` are done, how many `unit` a second, and how long the rest will take.

    `done` of the `total` are up to date already and not among `items`: that is said first, and they do not count for
    the speed.
    """
    if done:
        print(f"{what}: {done} up to date, {total - done} to do", file=sys.stderr, flush=True)
    per_second = f" {unit}/s" if unit else "/s"
    yield from (_bar if sys.stderr.isatty() else _log)(items, what, total, per_second, done)


class _Speed(ProgressColumn):
    def __init__(self, per_second: str) -> None:
        super().__init__()
        self.per_second = per_second

    def render(self, task: Task) -> Text:
        """Nothing before there is a speed."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}{self.per_second}")


def _bar(items: Iterable[T], what: str, total: int, per_second: str, done: int) -> Iterator[T]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(per_second)
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, completed=done)
        for item in items:
            yield item
            bar.advance(task)


def _log(items: Iterable[T], what: str, total: int, per_second: str, before: int) -> Iterator[T]:
    start = last = time.monotonic()
    for done, item in enumerate(items, before + 1):
        yield item
        now = time.monotonic()
        if now - last > LOG_EVERY_S or done == total:
            last, rate = now, (done - before) / max(now - start, 1e-9)
            left = (total - done) / rate
            print(f"{what}: {done}/{total}, {rate:.1f}{per_second}, {left:.0f} s left", file=sys.stderr, flush=True)
