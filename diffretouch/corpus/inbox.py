"""New photos from a folder that others fill: only whole ones, none that replaces another, no test photos."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from diffretouch.config import Corpus
from diffretouch.corpus.ingest import carry_out
from diffretouch.corpus.ingest_files import File, walk
from diffretouch.corpus.ingest_names import PAPER, PICTURES, split_suffix
from diffretouch.corpus.ingest_plan import Plan, make_plan
from diffretouch.corpus.ingest_report import held
from diffretouch.corpus.layout import SIDECARS, group_of, set_aside, spelled
from diffretouch.corpus.split import read_split_list, split_by
from diffretouch.errors import ConfigError, UserError

SHOWN = 5


class TakenIn(NamedTuple):
    """What came of an inbox."""

    photos: dict[str, str | None]
    """New photo -> its split: train or val; None where a split list leaves it out."""
    waiting: dict[str, list[str]]
    """Photo left in the inbox -> what it lacks, in words: a RAW, an expert's picture."""
    remarks: list[str]
    """Sentences for people."""


def take_in(dataset: str, inbox: Path, root: Path, corpus: Corpus, settle_s: float = 0) -> TakenIn:
    """Copy what is new and whole in `inbox` into `root`/`dataset`; run again, it goes on where it was stopped.

    Photos with a file that was written within the last `settle_s` seconds wait: somebody may still be at it.
    Copies, not links: whoever fills the inbox may write on in his files. UserError, before anything is written, where
    the inbox holds nothing of the dataset, other bytes for a file that is there, a second one under another suffix, or
    photos that would be test photos: test ids are fixed for ever.
    """
    plan = make_plan(dataset, inbox, root)
    changed = [target for target, state in plan.states.items() if state == "changed"]
    if changed:
        raise UserError(
            f"{inbox} holds other bytes for {len(changed)} files that {plan.folder} has ({_some(changed)}): an inbox "
            f"only adds. Remove them from it, or replace the old ones by hand: `diffretouch ingest {dataset} {inbox}`"
        )
    if rivals := _rivals(plan):
        raise UserError(
            f"{inbox} holds second files for {len(rivals)} places of {plan.folder}, under another suffix "
            f"({_some(rivals)}): an inbox only adds. Remove them from it, or first move the others away"
        )
    photos, waiting = _sort_out(plan, corpus.experts, time.time() - settle_s if settle_s else math.inf)
    splits = _splits(plan, sorted(photos), corpus)
    tests = [photo for photo, split in splits.items() if split == "test"]
    if tests:
        raise UserError(
            f"{inbox} holds {len(tests)} photos that would be test photos by corpora.{dataset}.split ({_some(tests)}): "
            "models must be judged on the same test photos for ever. Give them ids below split.test_from, or list "
            "their splits in split.list"
        )
    remarks = [set_aside(inbox, plan.misnamed)] if plan.misnamed else []
    remarks += carry_out(plan, [plan.files[target][1] for target in plan.work])
    return TakenIn(splits, waiting, remarks)


def _rivals(plan: Plan) -> list[str]:
    """New files of which the corpus has another one by that name, or for RAW the inbox, both named: one could be used.

    Of new finished pictures alone, a .tif with its preview, the best is taken.
    """
    places: dict[tuple[str, str], list[str]] = {}
    for target, (place, _) in plan.files.items():
        if place.kind not in (PAPER, "augmented input", "mask"):
            places.setdefault((place.kind, PurePosixPath(target).stem), []).append(target)
    for kind, targets in plan.vanished.items():
        for target in targets:
            stem, suffix = split_suffix(PurePosixPath(target).name)
            taken = suffix not in SIDECARS if kind == "RAW" else suffix in PICTURES
            if taken and (kind, stem) in places:
                places[kind, stem].append(target)
    return [
        f"{target} beside {', '.join(other for other in targets if other != target)}"
        for (kind, _), targets in places.items()
        for target in targets
        if len(targets) > 1 and plan.states.get(target) == "added"
        if kind == "RAW" or any(plan.states.get(other) != "added" for other in targets)
    ]


def _sort_out(plan: Plan, experts: Sequence[str], settled: float) -> tuple[set[str], dict[str, list[str]]]:
    """New photos that are whole and were not written after `settled`, and what the others lack; those are taken off
    the plan.
    """
    there = held(plan)
    inputs = ("RAW", "rendered input")
    brought: dict[str, set[str]] = {}
    fresh, work = set[str](), set(plan.work)
    for target, (place, file) in plan.files.items():
        photo = PurePosixPath(target).stem
        if place.kind not in (PAPER, "augmented input"):
            brought.setdefault(photo, set()).add(place.kind)
        # not when its bytes were made, which a copy may keep
        if target in work and Path(file.path).stat().st_ctime > settled:
            fresh.add(photo)
    old = there["RAW"] | there["rendered input"]
    new, waiting = set(), {}
    for photo, kinds in brought.items():
        has = kinds | {kind for kind, photos in there.items() if photo in photos}
        lacks = [] if has & set(inputs) else ["its RAW"]
        lacks += [f"expert {x}'s picture" for x in experts if f"expert {x}" not in has]
        lacks += ["time: it was written a moment ago"] if photo in fresh else []
        if lacks:
            waiting[photo] = lacks
        elif photo not in old:
            new.add(photo)
    for target in [name for name, (place, _) in plan.files.items() if place.kind != PAPER]:
        if PurePosixPath(target).stem in waiting:
            del plan.files[target], plan.states[target]
    return new, dict(sorted(waiting.items()))


def _splits(plan: Plan, photos: Sequence[str], corpus: Corpus) -> dict[str, str | None]:
    rule = corpus.split
    listed = None if rule.list is None else read_split_list(plan.folder / rule.list)
    return {photo: split_by(photo, group_of(plan.release.layout, photo), rule, listed) for photo in photos}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def boxes(known: Sequence[str], dataset: str | None, inbox: str | None) -> dict[str, Path | None]:
    """Where new photos of `dataset` are, or of each that is `known`; None for one that has none. ConfigError where the
    inbox is not that.
    """
    if dataset is not None and dataset not in known:
        raise ConfigError(f"unknown dataset {dataset!r}: params.yaml has {', '.join(known)}")
    box = None if inbox is None else Path(inbox).resolve()
    if box is not None and not box.is_dir():
        raise ConfigError(f"{box} is no folder: name the folder with the new photos")
    if dataset is not None:
        return {dataset: box}
    if box is None:
        return dict.fromkeys(known)
    there = {path.name for path in box.iterdir() if not path.name.startswith(".")}
    if strange := sorted(there - set(known)):
        shown = ", ".join(map(repr, strange[:3]))
        raise ConfigError(
            f"{box} holds {shown}: for all datasets, it holds a folder for each ({', '.join(known)}) and nothing else; "
            "with --dataset, the new photos themselves"
        )
    # a folder that is waiting for its next photos is no fault
    return {name: box / name if (box / name).is_dir() and _files(box / name) else None for name in known}


def _files(box: Path) -> bool:
    """Whether `ingest` would see a file there, or tell of its name."""
    return any(isinstance(found, File) or spelled(found) != found for found in walk(box, box / "nothing to leave out"))
