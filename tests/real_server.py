"""One real Prefect server for all tests of a process, with its schedules and events, and gone with it."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import flows  # sets the environment that Prefect reads at its first import

assert flows
START_S = 180


def environment() -> dict[str, str]:
    """For commands that are to find the server."""
    address, home = start()
    return {**os.environ, "PREFECT_API_URL": address, "PREFECT_HOME": home, "PYTHONUNBUFFERED": "1"}


@cache
def start() -> tuple[str, str]:
    """Its address and its folder."""
    return launch({})


def launch(more: Mapping[str, str]) -> tuple[str, str]:
    """A server with some settings of its own, gone with this process: its address and its folder."""
    home, port = tempfile.mkdtemp(prefix="prefect-"), free_port()
    address = f"http://127.0.0.1:{port}/api"
    settings = {
        "PREFECT_HOME": home,
        "PREFECT_API_URL": address,
        "PREFECT_SERVER_UI_ENABLED": "false",
        # schedules are looked at every minute by default
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
        # a run that found its deployment's only slot taken asks again after half a minute by default
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "3",
        **more,
    }
    log = (Path(home) / "server.log").open("w")
    words = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(words, env=os.environ | settings, stdout=log, stderr=log)
    atexit.register(_stop, server, home)
    end = time.monotonic() + START_S
    while not _answers(address):
        said = (Path(home) / "server.log").read_text()
        assert server.poll() is None and time.monotonic() < end, f"no server after {START_S} s:\n{said}"
        time.sleep(0.3)
    return address, home


@contextmanager
def used() -> Iterator[str]:
    """Flows of this process are recorded there."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    address, _ = start()
    with temporary_settings({PREFECT_API_URL: address}):
        yield address


def free_port() -> int:
    """One that nothing on 127.0.0.1 listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _answers(address: str) -> bool:
    try:
        with urlopen(f"{address}/health", timeout=5) as answer:
            return answer.status == 200
    except (URLError, ConnectionError, TimeoutError):
        return False


def _stop(server: subprocess.Popen, home: str) -> None:
    server.terminate()
    try:
        server.wait(15)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    shutil.rmtree(home, ignore_errors=True)
