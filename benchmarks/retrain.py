"""Retraining on the fivek demo from end to end: real photos, trainings, the real gate, and every way it can end.

`python -m benchmarks.retrain` clones this repository's HEAD to a temporary folder, takes all photos but those of SCENES
and of the test split out of its corpus, and retrains there four times: the first model; with what was taken out as new
photos in an inbox; once more with nothing new; with a training cut short. Then it rolls back. It writes
benchmarks/results/retrain.{json,md}: what each run said, how long it took, and which model was in use afterwards. It
ends with an error where these were not promoted, promoted, equal and kept out in that order, or where the rollback
does not give the bytes of the model before. About 40 minutes on two cores.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from diffretouch.files.atomic import write_json, write_text

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
DATASET = "fivek"
SCENES = ("flower", "officer", "rocket", "hills", "portrait_1", "garage", "sunset")
"""What the first model is trained on, and its validation photos."""
DECISIONS = ("promote", "promote", "equal", "keep")
ENDS = (*(f"{DATASET}: {decision}: " for decision in DECISIONS), f"model-{DATASET}@v1.0.0")
"""How each line has to begin."""


def main() -> None:
    """All of it, the results written before they are judged."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", type=int, default=100, metavar="STEPS", help="of the training that is cut short")
    asked = parser.parse_args()
    commit = call(ROOT, "git", "rev-parse", "HEAD").strip()
    with tempfile.TemporaryDirectory(prefix="retrain-") as top:
        lab, inbox = Path(top) / "lab", Path(top) / "inbox"
        made(lab)
        taken, left = take_out(lab, inbox)
        rows = [retrained(lab, f"first: {left} photos besides those for the test")]
        take_over(lab)
        rows.append(retrained(lab, f"{taken} new photos from an inbox", "--inbox", str(inbox)))
        take_over(lab)
        rows.append(retrained(lab, "nothing new", "--inbox", str(inbox)))
        set_steps(lab, asked.short)
        rows.append(retrained(lab, f"trained for {asked.short} steps only"))
        rows.append(rolled_back(lab))
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
    wrong = [row["run"] for row, end in zip(rows, ENDS, strict=True) if not row["said"].startswith(end)]
    if wrong:
        raise SystemExit(f"not as it should be: {'; '.join(wrong)}")


def made(lab: Path) -> None:
    """A clone with a remote of its own and the demo corpora, whose bytes data.dvc names already."""
    call(ROOT, "git", "clone", "-q", str(ROOT), str(lab))
    for key, value in (("email", "lab@example.org"), ("name", "Lab")):
        call(lab, "git", "config", f"user.{key}", value)
    call(lab, sys.executable, "-m", "diffretouch", "demo-data")
    call(lab, sys.executable, "-m", "dvc", "commit", "-q", "-f", "data.dvc")
    call(lab, sys.executable, "-m", "dvc", "remote", "add", "-q", "-d", "store", str(lab.parent / "store"))
    call(lab, "git", "commit", "-qam", "A remote")


def take_out(lab: Path, inbox: Path) -> tuple[int, int]:
    """Move the training photos outside SCENES to the inbox; how many they were, and how many are left to train on."""
    corpus = lab / "data" / DATASET
    table = pd.read_csv(corpus / "photos.csv", dtype=str)
    training = table["split"] == "train"
    out = table[training & ~table["group"].isin(SCENES)]
    for photo in out["photo_id"]:
        for path in sorted(corpus.rglob(f"{photo}.*")):
            target = inbox / path.relative_to(corpus)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            path.unlink()
    shutil.copyfile(corpus / "corpus.yaml", inbox / "corpus.yaml")
    table.drop(out.index).to_csv(corpus / "photos.csv", index=False, lineterminator="\n")
    call(lab, sys.executable, "-m", "dvc", "commit", "-q", "-f", "data.dvc")
    call(lab, "git", "commit", "-qam", "Before the new photos came")
    return len(out), int(training.sum()) - len(out)


def take_over(lab: Path) -> None:
    """What was promoted, into the branch and the files that are worked on."""
    call(lab, "git", "merge", "-q", "retrain")
    call(lab, sys.executable, "-m", "dvc", "checkout", "-q", "data.dvc")


def set_steps(lab: Path, steps: int) -> None:
    """How long the model trains, committed."""
    tree = yaml.safe_load((lab / "params.yaml").read_text())
    tree["train"]["steps"] = steps
    (lab / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    call(lab, "git", "commit", "-qam", f"{steps} steps")


def retrained(lab: Path, what: str, *words: str) -> dict[str, Any]:
    """One run: what it said, and what is in use afterwards."""
    print(f"== {what}", flush=True)
    start = time.perf_counter()
    said = call(lab, sys.executable, "-m", "flows.retrain", "--dataset", DATASET, *words).splitlines()[-1]
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
