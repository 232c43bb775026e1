"""Retraining on the fivek demo from end to end: real photos, trainings, the real gate, and every way it can end.

`python -m benchmarks.retrain [--steps 300 1200 100]` clones this repository's HEAD to a temporary folder, and there
retrains with so many steps one after the other, each run again without a change, and rolls back at the end where two
models have been in use. It writes
benchmarks/results/retrain.{json,md}: what each run said, how long it took, and which model was in use afterwards.
About 15 minutes on two cores.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from diffretouch.files.atomic import write_json, write_text

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
DATASET = "fivek"


def main() -> None:
    """All of it; ends with an error where the rollback does not give the bytes of the model before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[300, 1200, 100])
    asked = parser.parse_args()
    commit = call(ROOT, "git", "rev-parse", "HEAD").strip()
    with tempfile.TemporaryDirectory(prefix="retrain-") as top:
        lab = Path(top) / "lab"
        made(lab)
        rows = []
        for steps in asked.steps:
            set_steps(lab, steps)
            rows += [retrained(lab, f"{steps} steps"), retrained(lab, f"{steps} steps, once more")]
        promoted = [row for row in rows if row["in use"] != "nothing"]
        if len({row["in use"] for row in promoted}) > 1:
            rows.append(rolled_back(lab))
        else:
            rows.append(
                {"run": "rollback", "said": "nothing to go back to", "seconds": 0, "in use": rows[-1]["in use"]}
            )
    facts = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit[:12],
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "prefect", "dvc")},
        "runs": rows,
    }
    write_json(RESULTS / "retrain.json", facts)
    write_text(RESULTS / "retrain.md", report(facts))
    print(report(facts))


def made(lab: Path) -> None:
    """A clone with a remote of its own and the demo corpora, whose bytes data.dvc names already."""
    call(ROOT, "git", "clone", "-q", str(ROOT), str(lab))
    for key, value in (("email", "lab@example.org"), ("name", "Lab")):
        call(lab, "git", "config", f"user.{key}", value)
    call(lab, sys.executable, "-m", "diffretouch", "demo-data")
    call(lab, sys.executable, "-m", "dvc", "commit", "-q", "-f", "data.dvc")
    call(lab, sys.executable, "-m", "dvc", "remote", "add", "-q", "-d", "store", str(lab.parent / "store"))
    call(lab, "git", "commit", "-qam", "A remote")


def set_steps(lab: Path, steps: int) -> None:
    """How long the model trains, committed on what earlier retrainings left."""
    if call(lab, "git", "branch", "--list", "retrain"):
        call(lab, "git", "merge", "-q", "retrain")
    tree = yaml.safe_load((lab / "params.yaml").read_text())
    tree["train"]["steps"] = steps
    (lab / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    call(lab, "git", "commit", "-qam", f"{steps} steps")


def retrained(lab: Path, what: str) -> dict[str, Any]:
    """One run: what it said, and what is in use afterwards."""
    print(f"== {what}", flush=True)
    start = time.perf_counter()
    said = call(lab, sys.executable, "-m", "flows.retrain", "--dataset", DATASET).splitlines()[-1]
    print(said, flush=True)
    return {"run": what, "said": said, "seconds": round(time.perf_counter() - start), "in use": in_use(lab)}


def rolled_back(lab: Path) -> dict[str, Any]:
    """The model before in use again, by the digests of its files."""
    before = {name: digest(lab, name) for name in call(lab, "git", "tag", "--list", f"model-{DATASET}@*").split()}
    start = time.perf_counter()
    said = call(lab, sys.executable, "-m", "flows.rollback", DATASET).strip()
    seconds, name = round(time.perf_counter() - start), said.split()[0]
    folder = lab.parent / "prod"
    call(
        lab,
        *(sys.executable, "-m", "dvc", "artifacts", "get", "-q", "."),
        *(f"model-{DATASET}", "--stage", "prod", "-o", str(folder)),
    )
    if digest_of(folder) != before[name]:
        raise SystemExit(f"{name} is said to be in use, and its files are not what was promoted under that name")
    return {"run": "rollback", "said": said, "seconds": seconds, "in use": in_use(lab)}


def digest(lab: Path, tag: str) -> str:
    """Of the model of a version."""
    folder = lab.parent / tag
    path = f"work/train/{DATASET}/model"
    call(lab, sys.executable, "-m", "dvc", "get", "-q", ".", path, "--rev", tag, "-o", str(folder))
    return digest_of(folder)


def digest_of(folder: Path) -> str:
    """Of every file below it."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


def in_use(lab: Path) -> str:
    """The version in use, as `flows.registry` has it; nothing where there is none."""
    lines = call(lab, sys.executable, "-m", "flows.registry").splitlines()
    return next((line.split()[0] for line in lines if "#prod#" in line), "nothing")


def call(folder: Path, *words: str) -> str:
    """What a command printed; its words on stderr are shown where it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def report(facts: dict[str, Any]) -> str:
    """Markdown: a line a run."""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    lines = ["# Retraining on the fivek demo, with the real gate", ""]
    lines += [f"{facts['date']}, {facts['machine']}, {versions}, commit {facts['commit']}.", ""]
    lines += ["| run | what it said | seconds | in use afterwards |", "|---|---|---:|---|"]
    for row in facts["runs"]:
        lines.append(f"| {row['run']} | {row['said'].replace('|', '/')} | {row['seconds']} | {row['in use']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
