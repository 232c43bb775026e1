"""Stages under faults: killed at random moments, asked to stop, given damaged files.

`python -m benchmarks.soak [--kills 20] [--mutants 200] [PART ...]` writes benchmarks/results/soak-<part>.{json,md}; the
seeds are fixed. Parts: decode (killed, and given damaged RAW files), train (killed and asked to stop, in one process
and in two), flow (the chain, its dvc, its stages and a worker killed); without a name, all. It ends with an error where
outputs are not those of an undisturbed run, a process or a file is left behind, a stage fails, or a photo hangs. What
is damaged are generated files of every kind of sensor and, where DIFFRETOUCH_CORPUS names a folder, those of its raw/.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks import _soak_decode, _soak_flow, _soak_train
from diffretouch.files.atomic import write_json, write_text

RESULTS = Path(__file__).parent / "results"
PARTS: dict[str, ModuleType] = {"decode": _soak_decode, "train": _soak_train, "flow": _soak_flow}


def main() -> None:
    """The parts asked for; a part's results are written when all its trials have been stood."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--mutants", type=int, default=200, help="damaged files for decode")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: expected any of {', '.join(PARTS)}")
    for part in asked.parts or PARTS:
        trials = PARTS[part]
        results: dict[str, Any] = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            "versions": trials.VERSIONS,
            "load average before": round(os.getloadavg()[0], 1),
        }
        results |= trials.soak(asked.kills, asked.mutants) if part == "decode" else trials.soak(asked.kills)
        write_json(RESULTS / f"soak-{part}.json", results)
        write_text(RESULTS / f"soak-{part}.md", report(part, results))
        print(report(part, results))


def report(part: str, results: dict[str, Any]) -> str:
    """Markdown: a line a figure."""
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    what = "The chain as a flow" if part == "flow" else f"The {part} stage"
    lines = [f"# {what} under faults", ""]
    lines += [f"{results['date']}, {results['machine']}, {versions}; load average {results['load average before']}."]
    for trial, title in PARTS[part].TITLES.items():
        lines += ["", f"## {title}", "", "| what | figure |", "|---|---|"]
        for name, value in results[trial].items():
            words = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
            lines += [f"| {name} | {', '.join(words) if isinstance(words, list) else words} |"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
