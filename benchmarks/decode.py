"""The decode stage against bare rawpy that makes the same files: seconds, memory, and a run with nothing new.

`python -m benchmarks.decode [--photos 16] [--rounds 3] [--folder DIR] [PART ...]` writes 24-megapixel DNGs and what is
made of them below DIR (about 10 GB; the system's temporary folder if not named), removes them afterwards, and writes
benchmarks/results/decode.{json,md}. Parts: speed, memory, nothing-new; without a name, all. Parts not named keep their
earlier results.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import chdir
from importlib.metadata import version
from pathlib import Path
from typing import Any

import rawpy
import yaml

from benchmarks._decode_arms import BASE, Setting, peaks, speed
from benchmarks._decode_corpora import write_large, write_many
from diffretouch.files.atomic import write_json, write_text

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results/decode.json"
PARTS = ("speed", "memory", "nothing-new")
BYTES_A_PHOTO = 700e6
ALONE, WITH = Setting("AHD", experts=()), Setting("AHD")
MAIN, MORE = (ALONE, WITH), (Setting("DHT", ()), Setting("LINEAR", ()), Setting("AHD", short_edge=480))
IMPORTS = "import diffretouch.cli, diffretouch.stages.decode, diffretouch.config; diffretouch.config.load()"
COMMAND = """
import sys
opened = set()
def hear(event, arguments):
    if event == "open" and str(arguments[0]).endswith((".dng", ".tif")):
        opened.add(str(arguments[0]))
sys.addaudithook(hear)
sys.argv = ["diffretouch", "decode", "fivek"]
from diffretouch.cli import main
try:
    main()
finally:
    print("opened", len(opened))
"""


def main() -> None:
    """Measure the parts asked for; the results are written anew after each."""
    asked = arguments()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if shutil.disk_usage(asked.folder).free < BYTES_A_PHOTO * asked.photos + 2e9:
        sys.exit(f"{asked.folder} has too little room: name a folder with {BYTES_A_PHOTO * asked.photos / 1e9:.0f} GB")
    with tempfile.TemporaryDirectory(prefix="decode-", dir=asked.folder) as top, chdir(top):
        if {"speed", "memory"} & set(asked.parts):
            print(f"== writing {asked.photos} DNGs", flush=True)
            write_large(asked.photos, asked.width)
        for part in asked.parts:
            print(f"== {part}", flush=True)
            results[part] = {"facts": facts(asked)} | measure(part, asked)
            results[part]["facts"]["load average after"] = round(os.getloadavg()[0], 1)
            write_json(RESULTS, results)
            write_text(RESULTS.with_suffix(".md"), report(results))
    print(report(results))


def arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--photos", type=int, default=16, help="DNGs")
    parser.add_argument("--width", type=int, default=6000, help="of the DNGs in pixels; two thirds of it high")
    parser.add_argument("--rounds", type=int, default=3, help="turns of the main settings")
    parser.add_argument("--many", type=int, default=5000, help="photos of the run with nothing new, 6 files each")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: expected any of {', '.join(PARTS)}")
    asked.parts = asked.parts or PARTS
    return asked


def facts(asked: argparse.Namespace) -> dict[str, Any]:
    """When, on what, and beside what the figures are taken."""
    libraries = {name: version(name) for name in ("rawpy", "numpy", "tifffile", "imagecodecs")}
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {"libraw": ".".join(map(str, rawpy.libraw_version)), **libraries},
        "pixels": f"{asked.width} x {2 * asked.width // 3}",
        "load average before": round(os.getloadavg()[0], 1),
    }


def measure(part: str, asked: argparse.Namespace) -> dict[str, Any]:
    """One part's figures."""
    if part == "nothing-new":
        return nothing_new(asked.many)
    if part == "memory":
        return {"peaks, MiB": {str(setting): peaks(setting) for setting in MAIN}}
    dcraw = shutil.which("dcraw_emu")
    found = {str(s): speed(s, asked.photos, asked.rounds, dcraw if s is ALONE else None) for s in MAIN}
    few = min(4, asked.photos)
    return {"settings": found | {str(s): speed(s, few, 1, None if s.experts else dcraw) for s in MORE}}


def nothing_new(photos: int) -> dict[str, Any]:
    """The command over many decoded photos, beside its imports alone: the smallest of five, by turns."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as top, chdir(top):
        files = write_many(photos, BASE)
        Path("params.yaml").write_text(yaml.safe_dump(BASE.model_dump(mode="json"), sort_keys=False))
        took: dict[str, list[float]] = {IMPORTS: [], COMMAND: []}
        for _ in range(5):
            for script, seconds in took.items():
                start = time.perf_counter()
                environment = {**os.environ, "PYTHONPATH": str(ROOT)}
                done = subprocess.run(
                    [sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment
                )
                seconds.append(time.perf_counter() - start)
    if f"decode fivek: {photos} up to date, 0 to do" not in done.stderr:
        raise RuntimeError(f"the run had something to do: {done.stderr}")
    return {
        "photos": photos,
        "files": files,
        "seconds beyond imports, min": min(took[COMMAND]) - min(took[IMPORTS]),
        "seconds beyond imports, median": statistics.median(took[COMMAND]) - statistics.median(took[IMPORTS]),
        "seconds allowed": 2 + 1e-4 * files,
        "pictures and RAWs opened": int(done.stdout.split()[-1]),
    }


def report(results: dict[str, Any]) -> str:
    """Markdown: a table a part."""
    lines = ["# The decode stage beside bare rawpy", ""]
    lines += ["Two processes of one OpenMP thread each, ways by turns, median of the rounds; files in the page cache."]
    if "speed" in results:
        lines += ["", "## Speed", "", beside(results["speed"]), "", *speed_table(results["speed"]["settings"])]
    if "memory" in results:
        found = results["memory"]["peaks, MiB"]
        lines += ["", "## Memory of a process that makes one photo", "", beside(results["memory"]), ""]
        lines += [
            "| MiB beyond imports | " + " | ".join(next(iter(found.values()))) + " | stage / bare |",
            "|---" * 5 + "|",
        ]
        for name, peak in found.items():
            cells = [f"{mib:.0f}" for mib in peak.values()]
            lines += [f"| {name} | {' | '.join(cells)} | {peak['stage'] / peak['bare rawpy']:.2f} |"]
    if "nothing-new" in results:
        found = results["nothing-new"]
        lines += ["", "## Nothing new", "", beside(found), "", "| what | figure |", "|---|---|"]
        lines += [f"| {name} | {shown(value)} |" for name, value in found.items() if name != "facts"]
    return "\n".join(lines) + "\n"


def beside(part: dict[str, Any]) -> str:
    """The facts of a part in one line."""
    fact = part["facts"]
    load = f"{fact['load average before']} before, {fact['load average after']} after"
    versions = ", ".join(f"{name} {number}" for name, number in fact["versions"].items())
    return f"{fact['date']}, {fact['machine']}, {fact['pixels']} pixels, {versions}; load average {load}."


def speed_table(settings: dict[str, Any]) -> list[str]:
    """A line a way of each setting, then the checks."""
    lines = ["| setting | way | photos | seconds | CPU seconds | CPU / bare rawpy's |", "|---|---|---|---|---|---|"]
    for name, found in settings.items():
        bare = found["ways"]["bare rawpy"]["cpu_seconds, median"]
        for way, took in found["ways"].items():
            clock, cpu = took["seconds, median"], took["cpu_seconds, median"]
            lines += [f"| {name} | {way} | {found['photos']} | {clock:.1f} | {cpu:.1f} | {cpu / bare:.2f} |"]
    lines += ["", "| setting | stage / bare, clock | CPU | CPU without checks | CPU seconds of checks, a photo |"]
    lines += ["|---|---|---|---|---|"]
    for name, found in settings.items():
        checks = found["checks, seconds a photo"].items()
        words = ", ".join(f"{what.removesuffix(', CPU')} {s:.2f}" for what, s in checks if what.endswith("CPU"))
        ratios = [found[f"stage{kind}"] for kind in (" / bare, clock", " / bare, CPU", " without checks / bare, CPU")]
        lines += [f"| {name} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} | {words} |"]
    return lines


def shown(value: float) -> str:
    """A figure for people."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


if __name__ == "__main__":
    main()
