"""One worker process, seen from both ends: the parent's handle on it, and what the child runs.

The child is a new interpreter: in a forked one LibRaw's OpenMP and torch's threads deadlock. It is not started by
multiprocessing, which would import the main script again and refuses to start anything from inside dask's workers.

The parent sends the task, then items one by one, and None to grant memory; it closes the pipe to end the child. The
child sends ("ready",), ("memory", bytes), ("result", value) and ("error", exception, text of its traceback).
"""

from __future__ import annotations

import ctypes
import math
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Reserve = Callable[[int], None]
"""`reserve(bytes)` waits until the item at hand may use that much memory; at most once an item."""
GRACE_S = 10.0
"""Time an idle child has to end by itself."""


class Worker:
    """A child process and what it is doing.

    `task` is the pickled (work, setup, cpu_seconds): the child calls `setup()`, then `work(item, reserve)` of each.
    It has one OpenMP thread, sees the parent's `sys.path`, does not see Ctrl-C, and dies with its parent.
    """

    def __init__(self, task: bytes) -> None:
        self.ready = False
        self.item: int | None = None
        """Number of the item it has."""
        self.deadline = math.inf
        """`time.monotonic()` at which it is killed."""
        self.overdue = False
        self.pipe, theirs = Pipe()
        command = f"from diffretouch.worker import serve; serve({theirs.fileno()}, {os.getpid()})"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        # a signal that is blocked here stays blocked in a process started meanwhile
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", command],
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=[theirs.fileno()],
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()
        with suppress(ConnectionError):  # as in `tell`
            self.pipe.send_bytes(task)

    def tell(self, message: object) -> None:
        """Send an item, or None to grant memory."""
        with suppress(ConnectionError):  # it is dead: `hear` says so next
            self.pipe.send(message)

    def hear(self) -> tuple[Any, ...] | None:
        """The child's next message, waiting for it; None once the child has closed its end, that is, has died."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            return None

    def kill(self) -> None:
        """End the child at once, whatever it is doing."""
        self._process.kill()

    def dismiss(self) -> None:
        """Let an idle child end by itself, and end any other at once."""
        self.pipe.close()
        if self.item is not None or not self.ready:
            self.kill()

    def fate(self) -> int:
        """Wait until a child that was dismissed or has died is gone: its exit code, negative for a signal."""
        self.pipe.close()
        try:
            return self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()


def serve(descriptor: int, parent: int) -> None:
    """What the child runs, with its end of the pipe; an exception goes to the parent and ends it."""
    die_with(parent)
    pipe = Connection(descriptor)
    try:
        work, setup, cpu_seconds = pipe.recv()
        if setup is not None:
            setup()
        pipe.send(("ready",))
        for item in _items(pipe):
            # SIGPROF is left to its default, death, which also ends code that never returns to Python
            signal.setitimer(signal.ITIMER_PROF, cpu_seconds or 0)
            result = work(item, _reserve(pipe))
            signal.setitimer(signal.ITIMER_PROF, 0)
            pipe.send(("result", result))
        sys.stdout.flush()
        os._exit(0)  # torch takes a second to leave in good order, and nothing here needs it
    except Exception as error:  # noqa: BLE001 - the parent raises it
        pipe.send_bytes(_packed(error))


def _items(pipe: Connection) -> Iterator[Any]:
    while True:
        try:
            item = pipe.recv()
        except (EOFError, ConnectionError):
            return
        yield item


def _reserve(pipe: Connection) -> Reserve:
    asked: list[int] = []

    def reserve(size: int) -> None:
        if asked:
            # two items that each hold a part and wait for more would wait for ever
            raise RuntimeError(f"reserve({size}) after reserve({asked[0]}): an item reserves all its memory at once")
        asked.append(size)
        pipe.send(("memory", size))
        pipe.recv()

    return reserve


def _packed(error: Exception) -> bytes:
    """The error as a message; as a RuntimeError when its class does not survive pickling."""
    text = "".join(traceback.format_exception(error))
    try:
        packed = pickle.dumps(("error", error, text))
        pickle.loads(packed)  # noqa: S301 - made one line above
    except Exception:  # noqa: BLE001 - a class may raise anything there
        return pickle.dumps(("error", RuntimeError(f"{type(error).__name__}: {error}"), text))
    return packed


def die_with(parent: int) -> None:
    """Tie this process to its parent, and offer it to the kernel before the parent when memory runs out (Linux)."""
    if sys.platform == "linux":
        death_signal = 1  # PR_SET_PDEATHSIG in linux/prctl.h; sent when the thread that started this process ends
        ctypes.CDLL(None).prctl(death_signal, int(signal.SIGKILL))
        with suppress(OSError):  # no more than a wish, which a sandbox may refuse
            Path("/proc/self/oom_score_adj").write_text("500")
    if os.getppid() != parent:
        sys.exit("the parent process ended before this worker had begun")
