"""A PostgreSQL of a test's own, where Debian's package is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.real_server import free_port

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
START_S = 60


@contextmanager
def running() -> Iterator[int]:
    """Its port on 127.0.0.1; user `prefect` needs no password, database `postgres`."""
    assert PROGRAMS is not None
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    # it refuses to run as root
    user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    if user:
        os.chown(folder, user.pw_uid, user.pw_gid)
    port, data, log = free_port(), folder / "data", (folder / "log").open("w")
    create = [PROGRAMS / "initdb", "-D", data, "-U", "prefect", "-A", "trust", "--no-sync"]
    subprocess.run(create, cwd=folder, check=True, stdout=log, stderr=log, **who)
    words = [PROGRAMS / "postgres", "-D", data, "-k", folder, "-p", str(port), "-c", "listen_addresses=127.0.0.1"]
    server = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, **who)
    try:
        end = time.monotonic() + START_S
        while subprocess.run([PROGRAMS / "pg_isready", "-h", "127.0.0.1", "-p", str(port)], stdout=log).returncode:
            assert server.poll() is None and time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.2)
        yield port
    finally:
        server.send_signal(signal.SIGINT)  # does not wait for those who are connected
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def ask(port: int, query: str) -> str:
    """What it answers, as text."""
    words = ["psql", "-h", "127.0.0.1", "-p", str(port), "-U", "prefect", "-d", "postgres", "-Atc", query]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
