"""What Prefect costs on top of `dvc repro`: the same chain by both, side by side.

`python -m benchmarks.flow [--rounds 5]` writes benchmarks/results/flow.{json,md}. The chain is a small real DVC project
with as many stages as ours, whose steps take no time, so that everything measured is DVC and Prefect. Both ways take
turns; a real Prefect server is up, and what starting the embedded one costs is measured apart.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffretouch.files.atomic import write_json, write_text
from tests import real_server
from tests.small_project import write_params, write_project

RESULTS = Path(__file__).parent / "results" / "flow.json"
ROOT = Path(__file__).parent.parent
DATASETS = "abcdefg"
STAGES = 2 * len(DATASETS) + 1
LIMITS = {"more on an up-to-date tree, seconds": 5.0, "more a stage that runs, seconds": 2.5}


def main() -> None:
    """Measure, write, and end with an error where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flow-") as top:
        results = facts(asked.rounds) | measure(Path(top), asked.rounds)
    write_json(RESULTS, results)
    write_text(RESULTS.with_suffix(".md"), report(results))
    print(report(results))
    passed = [name for name, limit in LIMITS.items() if results["figures"][name] > limit]
    if passed:
        sys.exit(f"more than the limit: {', '.join(passed)}")


def measure(top: Path, rounds: int) -> dict[str, Any]:
    """Medians in seconds; differences are medians over rounds in which both ways took turns."""
    root = top / "project"
    write_project(root)
    for dataset in DATASETS[2:]:
        (root / "data" / dataset).mkdir()
        (root / "data" / dataset / "photo").write_text(dataset)
    turn, datasets = 0, f"[{', '.join(DATASETS)}]"
    server, times = real_server.environment(), dict[str, list[float]]()
    timed(dvc("add", "data"), root, server)
    for _ in range(rounds):
        for way, words in {"dvc repro": dvc(), "flow": flow(root)}.items():
            turn += 1
            write_params(root, datasets=datasets, decode=turn)
            times.setdefault(f"{way}, {STAGES} stages run", []).append(timed(words, root, server))
        for way, words in {"dvc repro": dvc(), "flow": flow(root)}.items():
            times.setdefault(f"{way}, up to date", []).append(timed(words, root, server))
    own = {key: value for key, value in server.items() if key != "PREFECT_API_URL"} | {
        "PREFECT_HOME": str(top / "home")
    }
    embedded = [timed(flow(root), root, own) for _ in range(2)]
    figures = {name: statistics.median(found) for name, found in times.items()}
    idle, working = (
        statistics.median(
            ours - plain for ours, plain in zip(times[f"flow, {what}"], times[f"dvc repro, {what}"], strict=True)
        )
        for what in ("up to date", f"{STAGES} stages run")
    )
    figures |= dict(zip(LIMITS, (idle, working / STAGES), strict=True))
    figures["flow, up to date, embedded server on a new database"] = embedded[0]
    figures["flow, up to date, embedded server, the second time"] = embedded[1]
    return {"figures": {name: round(value, 2) for name, value in figures.items()}, "all seconds": times}


def dvc(*words: str) -> list[str]:
    """The plain command."""
    return [sys.executable, "-m", "dvc", *(words or ("repro",))]


def flow(root: Path) -> list[str]:
    """The same by the flow."""
    # one stage at a time, as in dvc repro: what a stage costs is not hidden behind another
    return [sys.executable, "-m", "flows.reproduce", "--max-workers", "1", "--root", str(root)]


def timed(words: list[str], root: Path, environment: Mapping[str, str]) -> float:
    """Wall seconds of a command; RuntimeError with what it printed where it fails."""
    paths = {"PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    done = subprocess.run(words, cwd=root, env={**environment, **paths}, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return seconds


def facts(rounds: int) -> dict[str, Any]:
    """When, on what, and beside what the figures were taken."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("prefect", "dvc")},
        "rounds": rounds,
        "load average before": round(os.getloadavg()[0], 1),
    }


def report(results: dict[str, Any]) -> str:
    """Markdown: a line a figure."""
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    lines = ["# What Prefect costs on top of dvc repro", ""]
    lines += [
        f"{results['date']}, {results['machine']}, {versions}; {STAGES} stages whose steps take no time; medians of"
    ]
    lines += [
        f"{results['rounds']} rounds, in which both ways took turns; load average {results['load average before']}."
    ]
    lines += ["", "| what | seconds | may be |", "|---|---:|---:|"]
    lines += [f"| {name} | {value:.2f} | {LIMITS.get(name, '')} |" for name, value in results["figures"].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
