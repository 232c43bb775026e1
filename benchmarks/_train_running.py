"""The parent's handle on a process that trains in one way, for benchmarks.train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks._train_worker import Asked

ROOT = Path(__file__).parents[1]


class TooLargeError(Exception):
    """A way found too little memory on the GPU."""


class Running:
    """A process that trains in one way, from when it is warm."""

    def __init__(self, name: str, way: Asked) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with this
        command = [sys.executable, "-m", "benchmarks._train_worker", json.dumps(asdict(way))]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.said = self._hear()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        self._errors.close()

    def window(self, seconds: float) -> dict[str, Any]:
        """Seconds a step, steps and GiB."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"{self.name} ended with code {self._process.wait()}:\n{self._errors.read()}")
        found = json.loads(line)
        if "out of memory" in found:
            raise TooLargeError(self.name)
        return found
