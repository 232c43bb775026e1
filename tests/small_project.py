"""A small real DVC project of the same shape as ours: a matrix of datasets, a stage over all of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.kill import digests

# `slow` has a grandchild write half of the output first, and a last part after that many seconds
STEP = """
import json, os, pathlib, subprocess, sys, time, yaml
name, out, *sources = sys.argv[1:]
params = yaml.safe_load(pathlib.Path("params.yaml").read_text())
with open("calls.log", "a") as log:
    log.write(f"{name} {out} {time.time()}\\n")
print(f"{name} begins", flush=True)
if params["fail"] == out:
    sys.exit("the step refuses")
if params["sleep"] == out and not pathlib.Path("awake").exists():
    pathlib.Path("pid").write_text(str(os.getpid()))
    time.sleep(600)
files = [p for s in map(pathlib.Path, sources) for p in (sorted(s.glob("[a-z]*")) if s.is_dir() else [s])]
text = "".join(p.read_text() for p in files)
target = pathlib.Path(out)
target.parent.mkdir(parents=True, exist_ok=True)
whole = f"{text}{name} {params[name]}\\n"
if params["slow"]:
    half = "import sys, time; open(sys.argv[1], 'w').write(sys.argv[2]); time.sleep(float(sys.argv[3]))"
    subprocess.run([sys.executable, "-c", half, out, whole[: len(whole) // 2], str(params["slow"])], check=True)
target.write_text(whole)
with open("calls.log", "a") as log:
    log.write(f"{name}-end {out} {time.time()}\\n")
"""

DVC_YAML = """
stages:
  decode:
    matrix: {dataset: "${datasets}"}
    cmd: python step.py decode work/decode/${item.dataset} data/${item.dataset}
    params: [decode]
    deps: ["data/${item.dataset}"]
    outs: ["work/decode/${item.dataset}"]
  train:
    matrix: {dataset: "${datasets}"}
    cmd: python step.py train work/train/${item.dataset} work/decode/${item.dataset}
    params: [train]
    deps: ["work/decode/${item.dataset}"]
    outs: ["work/train/${item.dataset}"]
  report:
    cmd: python step.py report report work/train
    params: [report]
    deps: [work/train]
    outs: [report]
"""

STAGES = ["decode@a", "decode@b", "train@a", "train@b", "report"]


def write_params(root: Path, **changes: object) -> None:
    """params.yaml; a value is YAML."""
    values = {"datasets": "[a, b]", "decode": 1, "train": 1, "report": 1, "fail": "none", "sleep": "none", "slow": 0}
    text = "".join(f"{key}: {value}\n" for key, value in (values | changes).items())
    (root / "params.yaml").write_text(text)


def dvc(root: Path, *words: str) -> str:
    """What the command printed; AssertionError where it fails."""
    done = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_project(root: Path) -> None:
    """Everything but outputs."""
    for dataset in "ab":
        (root / "data" / dataset).mkdir(parents=True)
        (root / "data" / dataset / "photo").write_text(f"photo of {dataset}\n")
    (root / "step.py").write_text(STEP)
    (root / "dvc.yaml").write_text(DVC_YAML)
    # as ours has it; else DVC writes lists of its own among the outputs, in the order in which stages happen to end
    (root / ".gitignore").write_text("work/\n")
    write_params(root)
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    dvc(root, "init", "-q")
    dvc(root, "config", "core.check_update", "false")
    dvc(root, "add", "-q", "data")


def calls(root: Path) -> list[str]:
    """The steps that have begun since the last time this was asked."""
    log = root / "calls.log"
    lines = [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []
    log.unlink(missing_ok=True)
    return [name for name in lines if not name.endswith("-end")]


def outputs(root: Path) -> dict[str, str]:
    """SHA-256 of everything the stages made."""
    made = {name: value for name, value in digests(root / "work").items() if not name.startswith("logs/")}
    return made | ({"report": (root / "report").read_text()} if (root / "report").exists() else {})


def forget(root: Path) -> None:
    """Remove every output and what DVC remembers of the runs that made them."""
    for path in (root / "work", root / ".dvc" / "cache" / "runs"):
        shutil.rmtree(path, ignore_errors=True)
    for path in (root / "report", root / "dvc.lock"):
        path.unlink(missing_ok=True)


def until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for it; AssertionError where it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.1)
