"""The model in use, sampled and measured by the code of now on the test photos of now, in a clone of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from diffretouch.errors import UserError
from diffretouch.releases import Release
from flows import clone, git_process
from flows.graph import Stage

TRAIN, JUDGED = "train", "evaluate"


def model_path(dataset: str) -> str:
    """DVC's output that holds the model, from the root."""
    return f"work/train/{dataset}"


def same_model(root: Path, place: Path, champion: Release) -> bool:
    """Whether the clone trained, byte for byte, the model that is in use."""
    name, path = f"{TRAIN}@{champion.dataset}", model_path(champion.dataset)
    theirs = _outs(yaml.safe_load(git_process.read_file(root, champion.commit, "dvc.lock") or "{}"), name)
    ours = _outs(yaml.safe_load((place / "dvc.lock").read_text()), name)
    return path in ours and ours[path]["md5"] == theirs.get(path, {}).get("md5")


def made(place: Path, stage: str) -> bool:
    """Whether everything that dvc.lock names of a stage lies in the clone."""
    lock = place / "dvc.lock"
    outs = _outs(yaml.safe_load(lock.read_text()), stage) if lock.exists() else {}
    return bool(outs) and all((place / path).exists() for path in outs)


def measure(
    root: Path,
    place: Path,
    champion: Release,
    branch: str,
    stages: list[Stage],
    run: Callable[[list[Stage], Path], None],
) -> Path:
    """A clone of `place` with the champion's model in the challenger's place, its stages up to evaluate run there.

    `place` is committed; only stages between train and evaluate run, by `run`, and DVC's run cache answers for what was
    measured before. UserError where the champion's files are gone.
    """
    dataset = champion.dataset
    name, path = f"{TRAIN}@{dataset}", model_path(dataset)
    shutil.rmtree(root / clone.PLACE / f"{dataset}-champion", ignore_errors=True)
    own = clone.fresh(root, place, f"{dataset}-champion", git_process.git(place, "rev-parse", "HEAD"), branch)
    lock = yaml.safe_load((own / "dvc.lock").read_text())
    theirs = _outs(yaml.safe_load(git_process.read_file(root, champion.commit, "dvc.lock") or "{}"), name)
    if path not in theirs:
        raise UserError(
            f"dvc.lock of {champion.name} names no {path}: the model in use cannot be found; roll back to another"
        )
    outs = _outs(lock, name) | {path: theirs[path]}
    lock["stages"][name]["outs"] = list(outs.values())
    (own / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    below = _between(stages, dataset)
    read = {need for stage in stages if stage.name in below for need in stage.needs} - below - {name}
    needed = [out for need in sorted(read) for out in _outs(lock, need) if out.startswith("work/")]
    clone.restore(own, path, *needed)
    run([stage for stage in stages if stage.name in below], own)
    return own


def _between(stages: list[Stage], dataset: str) -> set[str]:
    """Stages that read the model, directly or not, and that evaluate reads, or is."""
    named = {stage.name: stage for stage in stages}
    model, last = f"{TRAIN}@{dataset}", f"{JUDGED}@{dataset}"
    if last not in named:
        raise UserError(f"dvc.yaml has no stage {last}: there is nothing to judge a model by")
    reads: dict[str, bool] = {}
    for stage in stages:  # each after those it needs
        reads[stage.name] = any(need == model or reads.get(need, False) for need in stage.needs)
    wanted, todo = set(), [last]
    while todo:
        name = todo.pop()
        if reads.get(name) and name not in wanted:
            wanted.add(name)
            todo += named[name].needs
    return wanted


def _outs(lock: dict[str, Any], stage: str) -> dict[str, dict[str, Any]]:
    """A stage's outputs in dvc.lock by path."""
    return {out["path"]: out for out in lock.get("stages", {}).get(stage, {}).get("outs", [])}
