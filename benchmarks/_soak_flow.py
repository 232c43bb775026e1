"""The chain as a flow under faults: the flow, its dvc, its stages and a worker killed at random moments."""

from __future__ import annotations

import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests import real_server, real_worker
from tests.kill_flow import kill_while_running
from tests.small_project import STAGES, write_params, write_project

TITLES = {"kills": "kill -9 at random moments, then run again"}
VERSIONS = {name: version(name) for name in ("prefect", "dvc")}
SEED, SLOW_S = 20, 0.5


def soak(count: int) -> dict[str, Any]:
    """So many kills on the small project of the tests, on a server that stays up."""
    with tempfile.TemporaryDirectory(prefix="soak-") as top:
        root = Path(top) / "project"
        write_project(root)
        write_params(root, slow=SLOW_S)
        print(f"== flow: {count} kills", flush=True)
        start = time.perf_counter()
        with real_server.used():
            real_worker.deploy()
            killed = kill_while_running(root, count, SEED, real_server.environment())
        seconds = round(time.perf_counter() - start, 1)
    return {"kills": {"survived": count, "killed": killed, "stages": len(STAGES), "seed": SEED, "seconds": seconds}}
