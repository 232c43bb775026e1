"""A small real project for tests of retraining and of the registry: git, DVC, our params.yaml, a script as stages.

Its photos are text files in FiveK's layout, its model is the line `quality N photos M`; N is `train.steps`.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

import yaml
from dvc.cli import main

ROOT = Path(__file__).resolve().parent.parent

STEP = """
import json, pathlib, sys, yaml
stage, dataset = sys.argv[1:]
params = yaml.safe_load(pathlib.Path("params.yaml").read_text())
with open("calls.log", "a") as log:
    log.write(f"{stage}@{dataset}\\n")
def out(path, text):
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
work = pathlib.Path("work")
if stage == "decode":
    photos = sorted(path.stem for path in pathlib.Path("data", dataset, "dng").glob("*.dng"))
    out(work / "decode" / dataset / "photos", "".join(f"{name}\\n" for name in photos))
elif stage == "train":
    if params["train"]["steps"] == 13:
        sys.exit("the training refuses 13 steps")
    photos = (work / "decode" / dataset / "photos").read_text().splitlines()
    out(work / "train" / dataset / "model" / "weights", f"{params['train']['steps']} {len(photos)}")
    origin = {"dataset": "toy", "provenance": "real"}
    out(work / "train" / dataset / "model" / "model_index.json", json.dumps({"origin": origin}))
elif stage == "sample":
    out(work / "sample" / dataset / "pictures", (work / "train" / dataset / "model" / "weights").read_text())
elif stage == "evaluate":
    quality = int((work / "sample" / dataset / "pictures").read_text().split()[0])
    out(work / "evaluate" / dataset / "quality", str(quality))
    out(f"reports/{dataset}/metrics.json", json.dumps({"test": {"expert": {"quality": {"mean": quality}}}}))
else:
    out("reports/index.html", "".join(sorted(path.read_text() for path in work.glob("evaluate/*/quality"))))
"""

DVC_YAML = """
stages:
  decode:
    matrix: {dataset: "${datasets}"}
    cmd: python step.py decode ${item.dataset}
    deps: ["data/${item.dataset}", step.py]
    outs: ["work/decode/${item.dataset}": {persist: true}]
  train:
    matrix: {dataset: "${datasets}"}
    cmd: python step.py train ${item.dataset}
    params: [train]
    deps: ["work/decode/${item.dataset}"]
    outs: ["work/train/${item.dataset}"]
  sample:
    matrix: {dataset: "${datasets}"}
    cmd: python step.py sample ${item.dataset}
    deps: ["work/decode/${item.dataset}", "work/train/${item.dataset}"]
    outs: ["work/sample/${item.dataset}"]
  evaluate:
    matrix: {dataset: "${datasets}"}
    cmd: python step.py evaluate ${item.dataset}
    deps: ["work/sample/${item.dataset}"]
    outs: ["work/evaluate/${item.dataset}"]
    metrics: ["reports/${item.dataset}/metrics.json": {cache: false}]
  report:
    cmd: python step.py report all
    deps: [work/evaluate]
    outs: [reports/index.html]
artifacts:
  model-fivek: {path: work/train/fivek/model, type: model}
"""

CARD = "name: toy\nprovenance: real\nlicence: CC0\n"


def run(root: Path, *words: str) -> str:
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dvc(root: Path, *words: str) -> None:
    """In this process, which has DVC imported already."""
    with contextlib.chdir(root):
        assert main([*words]) == 0, words


def add_photo(corpus: Path, photo_id: str, text: str = "") -> None:
    """A photo with all five experts' pictures, in FiveK's layout."""
    for path in [f"dng/{photo_id}.dng", *(f"tiff16_{x}/{photo_id}.tif" for x in "abcde")]:
        target = corpus / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{path} {text}\n")


def set_steps(root: Path, steps: int, message: str | None = None) -> None:
    """The model's quality from the next training on; committed with a message."""
    tree = yaml.safe_load((root / "params.yaml").read_text())
    tree["train"]["steps"] = steps
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    if message:
        run(root, "git", "commit", "-qam", message)


def make(root: Path, *, steps: int = 700) -> Path:
    """The project at `root`: committed, its corpus added, a remote in the folder beside it, no stage run yet."""
    corpus = root / "data/fivek"
    for number in (1, 2, 4501):
        add_photo(corpus, f"a{number:04d}-toy")
    (corpus / "corpus.yaml").write_text(CARD)
    (root / "step.py").write_text(STEP)
    (root / "dvc.yaml").write_text(DVC_YAML)
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["datasets"] = ["fivek"]
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    set_steps(root, steps)
    shutil.copyfile(ROOT / ".gitignore", root / ".gitignore")
    (root / ".gitignore").open("a").write("/calls.log\n")
    run(root, "git", "init", "-q", "-b", "main")
    run(root, "git", "config", "user.email", "lab@example.org")
    run(root, "git", "config", "user.name", "Lab")
    dvc(root, "init", "-q")
    dvc(root, "config", "core.analytics", "false")
    dvc(root, "add", "-q", "data")
    dvc(root, "remote", "add", "-q", "-d", "store", "../store")
    (root.parent / "store").mkdir()
    run(root, "git", "add", "-A")
    run(root, "git", "commit", "-qm", "The project")
    return root
