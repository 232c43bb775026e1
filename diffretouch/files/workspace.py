"""Where things lie, relative to the root of the repository (the current folder)."""

from __future__ import annotations

import shutil
from pathlib import Path

from diffretouch.errors import UserError
from diffretouch.files.atomic import whole


def corpus_dir(dataset: str) -> Path:
    """The raw corpus: never changed by a stage."""
    return Path("data") / dataset


def stage_dir(stage: str, dataset: str) -> Path:
    """What a stage makes for the stages after it."""
    return Path("work") / stage / dataset


def report_dir(dataset: str) -> Path:
    """What people read."""
    return Path("reports") / dataset


def publish(work_file: Path, dataset: str) -> None:
    """Copy a file of `work/` to where people read it; the report stage, which writes there, reads the original."""
    with whole(report_dir(dataset) / work_file.name) as temporary:
        shutil.copyfile(work_file, temporary)


def training_dir(dataset: str) -> Path:
    """What a training run needs to go on: prepared ground truths and states; outside every DVC output, which DVC may
    remove.
    """
    return Path("work/.resume") / f"train-{dataset}"


def records_file(dataset: str) -> Path:
    """What decode knows of its finished pictures; beside them, so that they alone decide what runs after them."""
    return Path("work/decode") / f"{dataset}.records.parquet"


def journal_file(dataset: str) -> Path:
    """What decode remembers of an unfinished run, and of the files it has read; local, outside every DVC output."""
    return Path("work/.resume") / f"decode-{dataset}.jsonl"


def beacon_file(dataset: str) -> Path:
    """By this file workers on other machines see that they work in the same folder, and for as long as they should."""
    return Path("work/.resume") / f"decode-{dataset}.beacon"


def new_dir(path: Path) -> Path:
    """An empty folder at `path`: what an earlier or killed run left there is removed."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True, exist_ok=True)
    return path


def require(path: Path, made_by: str) -> Path:
    """`path`, or a UserError naming the command that makes it."""
    if not path.exists():
        raise UserError(f"{path} not found: it is made by `{made_by}`")
    return path
