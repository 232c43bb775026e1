"""A work pool and workers of it on the tests' real server, and runs of what prefect.yaml deploys there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from tests import real_server  # isort: skip - it sets the environment that Prefect reads at its first import
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment

from flows.place import ROOTS
from tests.fake_chain import ROOT

POOL = "gpu"


def ask(question: Callable[[Any], Any]) -> Any:
    """What the server's API answers to `question(client)`."""

    async def answer() -> Any:
        async with get_client() as client:
            return await question(client)

    return asyncio.run(answer())


def prefect(*words: str) -> None:
    """The command; AssertionError where it fails."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", *words]
    environment = real_server.environment() | {"PWD": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def deploy() -> None:
    """The pool, and all of prefect.yaml."""
    prefect("work-pool", "create", POOL, "--type", "process", "--overwrite")
    prefect("deploy", "--all")


@contextmanager
def running(limit: int = 9, **changes: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of so many runs at once with some settings of its own, that may work in the tests' repositories."""
    words = [
        sys.executable,
        "-m",
        "prefect",
        "worker",
        "start",
        "--pool",
        POOL,
        "--type",
        "process",
        "--limit",
        f"{limit}",
    ]
    log = Path(real_server.start()[1]) / "worker.log"
    environment = real_server.environment() | {ROOTS: tempfile.gettempdir()} | changes
    with log.open("ab") as file:
        process = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=file, stderr=file)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:  # it waits for a run that it has started
                process.kill()
                process.wait()


def started(root: Path, name: str = "chain/reproduce", **parameters: object) -> UUID:
    """A run of that deployment for the project."""
    asked = {"root": str(root), **parameters}
    return run_deployment(name, parameters=asked, timeout=0, as_subflow=False).id


def state_of(run_id: UUID) -> str:
    """`RUNNING`, `COMPLETED` ..."""
    return str(ask(lambda client: client.read_flow_run(run_id)).state.type.value)
