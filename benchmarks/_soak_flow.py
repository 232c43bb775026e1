"""The chain as a flow under faults: the flow, its dvc, its stages and a worker killed at random moments.

Once with the project's own stages on the profile `tiny`, once with stand-ins that take half a second, so that more of
the kills hit what the flow does between stages.
"""

from __future__ import annotations

import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests import real_server, real_worker, small_project, tiny_project
from tests.kill_flow import kill_while_running

TITLES = {
    "tiny": "the project itself, profile tiny: kill -9 at random moments, then run again",
    "kills": "stand-ins for stages: kill -9 at random moments, then run again",
}
VERSIONS = {name: version(name) for name in ("prefect", "dvc")}
SEED, SLOW_S = 20, 0.5


def soak(count: int) -> dict[str, Any]:
    """So many kills on either project, on a server that stays up."""
    with tempfile.TemporaryDirectory(prefix="soak-") as top, real_server.used():
        real_worker.deploy()
        tiny, small = Path(top) / "tiny", Path(top) / "small"
        tiny_project.write_project(tiny)
        small_project.write_project(small)
        small_project.write_params(small, slow=SLOW_S)
        return {
            "tiny": _killed(tiny, count, tiny_project, 8),
            "kills": _killed(small, count, small_project, len(small_project.STAGES)),
        }


def _killed(root: Path, count: int, project: Any, stages: int) -> dict[str, Any]:
    print(f"== flow, {root.name}: {count} kills", flush=True)
    start = time.perf_counter()
    killed = kill_while_running(root, count, SEED, real_server.environment(), project=project)
    seconds = round(time.perf_counter() - start, 1)
    return {"survived": count, "killed": killed, "stages": stages, "seed": SEED, "seconds": seconds}
