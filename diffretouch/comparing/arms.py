"""The arms of a comparison on disk: a folder each, with parameters of its own, and what is done there already."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from diffretouch.code import BELOW, code_fingerprint
from diffretouch.config import PARAMS, Arm, Params
from diffretouch.files.atomic import write_json, write_text
from diffretouch.files.tables import read_table
from diffretouch.files.workspace import new_dir, stage_dir, training_dir
from diffretouch.training.prepare import CODE as TRAINING
from diffretouch.training.resume import Mark, flat

DONE = "done.json"
SPENT = "spent.jsonl"
MEASURES = ("evaluation", "metrics.py", "stages/evaluate.py")
CODE = {
    "train": TRAINING,
    "peer-train": (*BELOW, "training", "peers", "comparing/peer_train.py", "comparing/peer_sample.py"),
    "sample": (*BELOW, "sampling", "stages/sample.py"),
    "peer-sample": (*BELOW, "peers", "comparing/peer_sample.py"),
    "evaluate": (*BELOW, *MEASURES),
    "probe": (*BELOW, *MEASURES, "sampling", "comparing/probe.py", "comparing/adjust.py"),
}
"""Of this package, what the result of a step depends on; how it is run and shown does not count."""
NOT_OF_PEERS = frozenset(
    {
        "start",
        "precision",
        "network_size",
        "channels",
        "attention",
        "layers_per_block",
        "head_channels",
        "norm_groups",
        "grid_depth",
        "output",
        "condition",
        "condition_gain",
        "condition_dropout",
        "dropout_by_component",
        "timesteps",
        "pixel_timesteps",
        "pixel_weight",
        "control_loss",
        "control_weight",
        "control_difference",
        "control_pairs",
        "grid_smoothness",
        "tau",
        "published_gradient",
        "head_learning_rate",
        "weight_decay",
        "validation_steps",
        "validation_last_timestep",
        "slider_photos",
        "slider_reach",
        "autoencoder",
    }
)
"""Of `train`, what no peer reads: the network, losses, sampler and weight decay of ours. Another value of these trains
no peer again."""


@dataclass(frozen=True)
class Run:
    """One arm with one seed, in a folder of its own."""

    name: str
    seed: int
    arm: Arm
    dataset: str
    folder: Path
    params: Params
    """As the arm has them."""
    base: dict[str, Mark]
    """Data and versions, which every step depends on."""

    @property
    def label(self) -> str:
        """`full-0`."""
        return f"{self.name}-{self.seed}"

    @property
    def steps(self) -> tuple[str, ...]:
        """The words of its processes, in order."""
        own = ("train", "sample") if self.arm.network == "diffretouch" else ("peer-train", "peer-sample")
        return (*own, "evaluate", "probe")

    def words(self, step: str) -> tuple[str, ...]:
        """What `child` is told to do a step."""
        one = self.params.compare.expert if self.arm.experts == "one" else ""
        if step == "probe":
            return (step, self.dataset, one)
        return (step, self.dataset, self.arm.network, one) if step.startswith("peer-") else (step, self.dataset)

    @cached_property
    def marks(self) -> dict[str, dict[str, Mark]]:
        """Of every step, all it depends on: the parameters it reads, code, data, versions."""
        p, corpus = self.params, self.params.corpus(self.dataset).model_dump(mode="json")
        one = p.compare.expert if self.arm.experts == "one" else None
        arm = {"network": self.arm.network, "experts": self.arm.experts, "expert": one}
        train = _plain(p.train)
        if self.arm.network != "diffretouch":
            train = {key: value for key, value in train.items() if key not in NOT_OF_PEERS}
        read: dict[str, Any] = {
            "train": {"train": train, "corpus": corpus, "arm": arm},
            "sample": {"sample": p.sample},
            "evaluate": {"evaluate": p.evaluate},
            "probe": {"best_of": p.compare.best_of, "draws": p.compare.draws, "sample": p.sample},
        }
        out = {}
        for step in self.steps:
            sections = read[step.removeprefix("peer-")].items()
            marks = {key: mark for name, tree in sections for key, mark in flat(_plain(tree), name).items()}
            out[step] = {**self.base, **marks, "code": code_fingerprint(CODE[step])}
        return out

    def todo(self) -> tuple[str, ...]:
        """The steps that are not done, or were done with something else, and all after them."""
        done = self._done()
        first = next((i for i, step in enumerate(self.steps) if done.get(step) != self.marks[step]), len(self.steps))
        return self.steps[first:]

    def changed(self, step: str) -> str:
        """What is different since `step` was done: `train.tau was 0.1, is 0.2`; empty where it never was."""
        before, now = self._done().get(step), self.marks[step]
        if before is None:
            return ""
        names = [name for name in {**now, **before} if now.get(name) != before.get(name)]
        said = [f"{name} was {str(before.get(name))[:12]}, is {str(now.get(name))[:12]}" for name in names[:6]]
        return ", ".join(said + ([f"and {len(names) - 6} more"] if len(names) > 6 else []))

    def open(self) -> None:
        """Make the folder fit to run its next step; what was trained with other parameters is removed first."""
        if (todo := self.todo()) and todo[0] == self.steps[0] and self.changed(todo[0]):
            shutil.rmtree(self.folder)
        open_folder(self.folder, self.params)

    def finished(self, step: str) -> None:
        """Note that `step` is done."""
        place = self.steps.index(step)
        known = {name: marks for name, marks in self._done().items() if name in self.steps[:place]}
        write_json(self.folder / DONE, {**known, step: self.marks[step]})

    def work(self, stage: str) -> Path:
        """What a stage left in this arm's folder."""
        return self.folder / stage_dir(stage, self.dataset)

    def _done(self) -> dict[str, dict[str, Mark]]:
        path = self.folder / DONE
        return json.loads(path.read_text()) if path.exists() else {}


def _plain(tree: Any) -> Any:
    return tree.model_dump(mode="json") if isinstance(tree, BaseModel) else tree


def runs(params: Params, dataset: str, threads: int) -> list[Run]:
    """Every arm with every seed, seed by seed; each trains in one process, like a peer, with `threads` threads."""
    base, root = _base(dataset), comparing_dir(dataset)
    runtime = params.runtime.model_copy(update={"threads": threads, "workers": 1, "processes": 1})
    out = []
    for seed in params.compare.seeds:
        for name, arm in params.compare.arms.items():
            own = params.arm(name, seed).model_copy(update={"runtime": runtime})
            out.append(Run(name, seed, arm, dataset, root / f"{name}-{seed}", own, base))
    return out


def comparing_dir(dataset: str) -> Path:
    """The arms' folders: outside every DVC output, so that a stopped comparison goes on."""
    return Path("work/.resume") / f"compare-{dataset}"


def open_folder(folder: Path, params: Params) -> None:
    """A root for the package's commands: params.yaml, and links to what the stages before training made."""
    (folder / "work").mkdir(parents=True, exist_ok=True)
    write_text(folder / PARAMS, yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False))
    for stage in ("decode", "attributes"):
        link = folder / "work" / stage
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(Path("work") / stage, link.parent), target_is_directory=True)


def views_of(run: Run) -> Path:
    """The folder in which what `run` trains on is prepared; arms and seeds that need the same share it."""
    train = run.params.train
    names = ("seed", "views", "network_size", "autoencoder", "start", "validation_photos")
    text = json.dumps(train.model_dump(mode="json", include=set(names)), sort_keys=True)
    return run.folder.parent / f"views-{run.seed}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def take_views(run: Run, prepared: Path) -> None:
    """Give the arm the prepared views, as hard links: files of their own to remove, shared on disk."""
    source, target = prepared / training_dir(run.dataset) / "views", run.folder / training_dir(run.dataset) / "views"
    marks = "marks.json"
    if not (target / marks).exists() or (target / marks).read_bytes() != (source / marks).read_bytes():
        beside = new_dir(target.with_name(f".{target.name}.part"))  # a killed run must not leave a part of them
        shutil.copytree(source, beside, copy_function=os.link, dirs_exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        beside.replace(target)


def _base(dataset: str) -> dict[str, Mark]:
    """Digest of the decoded pictures, tables and scores, and versions."""
    digest = hashlib.sha256()
    for path in _files(dataset):
        digest.update(str(path).encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return {"data": digest.hexdigest(), **{name: version(name) for name in ("torch", "diffusers")}}


def _files(dataset: str) -> Iterator[Path]:
    decoded, scored = stage_dir("decode", dataset), stage_dir("attributes", dataset)
    read_table(decoded / "manifest.parquet")
    read_table(scored / "attributes.parquet")
    for folder in (decoded, scored):
        yield from sorted(path for path in folder.rglob("*") if path.suffix not in (".jpg", "") and path.is_file())
