"""A stage run many times by a process that has done the imports: what befalls it befalls its work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.fake_chain import ROOT

LONGEST_S = 120
"""A run that has not ended by then is killed, by SIGALRM."""


@dataclass(frozen=True)
class Run:
    """How a run ended."""

    code: int
    """Exit code, negative for the signal it died of."""
    seconds: float
    """What it took: all of it, or from its signal to its end."""
    said: str


class Forked:
    """`diffretouch` with some words, each run a fork of one process that has done the imports."""

    def __init__(self, *words: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", "from tests.forked import serve; serve()", *words]
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, bufsize=1
        )
        self._hear()

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.communicate()

    def run(self, root: Path, after: float | None = None, number: int = signal.SIGKILL) -> Run:
        """One run in `root`, which gets the signal `number` after so many seconds unless it has ended by then."""
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps([str(root), after, number]) + "\n")
        return Run(*json.loads(self._hear()))

    def _hear(self) -> str:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line, "the process that starts the runs has died"
        return line


def serve() -> None:
    """What the process that starts the runs does."""
    import torch

    import diffretouch.stages.train  # noqa: F401 - what a run would import
    from diffretouch.cli import main

    torch.set_num_threads(1)  # a fork takes no threads along
    print("ready", flush=True)
    for line in sys.stdin:
        root, after, number = json.loads(line)
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            os.chdir(root)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            signal.alarm(LONGEST_S)
            main()
            sys.exit()
        if after is not None:
            time.sleep(after)
            start = time.monotonic()
            os.kill(child, number)  # not waited for yet, so the number is still its own
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        took = time.monotonic() - start
        said_text = (Path(root) / "said.txt").read_text()
        print(json.dumps([code, took, said_text]), flush=True)
