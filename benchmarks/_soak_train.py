"""The train stage under faults: killed and asked to stop at random moments, in one process and in two."""

from __future__ import annotations

import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.kill_train import disturb_two, kill_while_training, stop_while_training
from tests.train_start import TINY, write_start

TITLES = {
    "kills": "kill -9 at random moments, then run again",
    "stops": "SIGTERM at random moments, then run again",
    "two processes": "Two processes that train together: their parent killed, one of them killed, SIGTERM",
}
VERSIONS = {name: version(name) for name in ("torch", "accelerate", "dvclive")}
SEED, STOPS, TURNS = 20, 6, 2


def soak(count: int) -> dict[str, Any]:
    """All trials, with so many kills of one process."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="soak-") as top:
        root = Path(top)
        write_start(root)
        common = {"steps": TINY["steps"], "seed": SEED}
        print(f"== train: {count} kills", flush=True)
        start = time.perf_counter()
        kill_while_training(root, count, SEED)
        results["kills"] = {"survived": count, **common, "seconds": round(time.perf_counter() - start, 1)}
        print(f"== train: {STOPS} times SIGTERM", flush=True)
        longest = stop_while_training(root, STOPS, SEED)
        results["stops"] = {"left and went on": STOPS, **common, "longest to leave, seconds": round(longest, 1)}
        print(f"== train: two processes, {TURNS} turns", flush=True)
        longest = disturb_two(root, TURNS, SEED)
        results["two processes"] = {
            "survived, parent killed while they start": 1,
            "survived, parent killed": TURNS,
            "survived, one of the two killed": 2 * TURNS,
            "left after SIGTERM and went on": TURNS,
            **common,
            "longest to leave, seconds": round(longest, 1),
        }
    return results
