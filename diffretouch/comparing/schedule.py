"""Runs the arms' processes, some at a time; asked to stop, it lets them save and stops with them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from diffretouch.comparing.arms import SPENT
from diffretouch.errors import UserError
from diffretouch.training.resume import Stopped, stop_requests

GRACE_S = 28.0
"""A process asked to stop leaves within 30 seconds; then it is ended."""
SHOWN_LINES = 12
"""Of a failed process's log."""


@dataclass
class Job:
    """Processes to run one after the other in one folder."""

    label: str
    folder: Path
    steps: deque[tuple[str, ...]]
    """Words for `child`, of the next step first; the first of them names the step."""
    begin: Callable[[str], None] = lambda _: None
    """Called before each step."""
    end: Callable[[str], None] = lambda _: None
    """Called after each step that went well."""
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def step(self) -> str:
        """The next one."""
        return self.steps[0][0]

    def start(self, threads: int) -> None:
        """Start the next step; what it says goes to log.txt."""
        self.begin(self.step)
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-P", "-m", "diffretouch.comparing.child", str(os.getpid()), *self.steps[0]]
        path = os.pathsep.join(entry for entry in (os.environ.get("PYTHONPATH"), *map(str, _roots())) if entry)
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def poll(self) -> int | None:
        """The step's exit code once it has ended; its CPU time, children included, is noted then."""
        assert self.process is not None
        pid, status, used = os.wait4(self.process.pid, os.WNOHANG)
        if pid == 0:
            return None
        self.process.returncode = os.waitstatus_to_exitcode(status)
        line = {"step": self.step, "cpu_s": round(used.ru_utime + used.ru_stime, 2), "exit": self.process.returncode}
        with (self.folder / SPENT).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return self.process.returncode

    def last_words(self) -> str:
        """The end of its log."""
        lines = (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-SHOWN_LINES:])


def run_all(jobs: Sequence[Job], at_a_time: int, threads: int, what: str) -> None:
    """Run all jobs, `at_a_time` of them, each process with `threads` threads.

    Raises:
        UserError: a process failed; the others are stopped, and go on when the same command is run again.
        Stopped: this process was asked to stop, and so were they.
    """
    waiting, running = deque(job for job in jobs if job.steps), list[Job]()
    total, started = len(waiting), time.monotonic()
    with stop_requests() as asked:
        try:
            while (waiting or running) and not asked:
                while waiting and len(running) < at_a_time:
                    running.append(_started(waiting.popleft(), threads, what))
                time.sleep(0.05)
                for job in list(running):
                    if (code := job.poll()) is None:
                        continue
                    running.remove(job)
                    if code and asked:
                        continue
                    if code:
                        raise UserError(
                            f"{what}: {job.label}, {job.step} ended with exit code {code}; the end of "
                            f"{job.folder / 'log.txt'}:\n{job.last_words()}"
                        )
                    job.end(job.step)
                    job.steps.popleft()
                    if job.steps and not asked:
                        running.append(_started(job, threads, what))
                    elif not job.steps:
                        finished = total - len(waiting) - len(running)
                        _say(
                            f"{what}: {job.label} done, {finished} of {total} after {time.monotonic() - started:.0f} s"
                        )
        finally:
            _stop(running)
    if asked:
        _say(f"{what}: stopped; run the same command to go on")
        raise Stopped(128 + asked[0])


def _started(job: Job, threads: int, what: str) -> Job:
    _say(f"{what}: {job.label}, {job.step}")
    job.start(threads)
    return job


def _stop(running: Sequence[Job]) -> None:
    """Ask what still runs to stop, and end what does not."""
    _tell(running, signal.SIGTERM)
    deadline, left = time.monotonic() + GRACE_S, list(running)
    while left and time.monotonic() < deadline:
        left = [job for job in left if _runs(job)]
        time.sleep(0.05)
    _tell(left, signal.SIGKILL)
    for job in left:
        while _runs(job):
            time.sleep(0.05)


def _tell(jobs: Sequence[Job], number: int) -> None:
    """Send a signal to every process that has not been seen to end."""
    for job in jobs:
        assert job.process is not None
        if job.process.returncode is None:
            os.kill(job.process.pid, number)  # Popen's own could take its exit code, and with it what it cost


def _runs(job: Job) -> bool:
    """Whether its process has yet to end; a cost that cannot be noted must not keep others from being waited for."""
    assert job.process is not None
    with suppress(OSError):
        job.poll()
    return job.process.returncode is None


def _roots() -> list[Path]:
    """Where this package lies: the processes run elsewhere."""
    return [Path(__file__).resolve().parents[2]]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
