"""What `ingest` tells: which files it brings in and leaves alone, and which photos are complete then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from rich.console import Console
from rich.table import Table

from diffretouch.corpus.ingest_names import PAPER
from diffretouch.corpus.ingest_plan import Plan
from diffretouch.corpus.layout import picture_files, raw_files, set_aside, spelled
from diffretouch.corpus.photo_table import read_photo_table

SHOWN = 5


def print_plan(plan: Plan, *, dry_run: bool = False) -> None:
    """Files by kind and state; names of what changed, vanished or is no part of the release."""
    table = Table(title=f"{plan.source} -> {plan.folder}", title_justify="left", title_style="bold")
    table.add_column("files")
    for name in ("found", "to add" if dry_run else "added", "already there", "changed", "vanished"):
        table.add_column(name, justify="right")
    for kind in plan.release.kinds:
        states = Counter(plan.states[target] for target, (place, _) in plan.files.items() if place.kind == kind)
        counts = (states.total(), states["added"], states["there"], states["changed"], len(plan.vanished[kind]))
        if any(counts):
            table.add_row(kind, *map(str, counts))
    _console().print(table)
    changed = [target for target, state in plan.states.items() if state == "changed"]
    found = {place.kind for place, _ in plan.files.values()}
    vanished = [target for kind in plan.release.kinds if kind in found for target in plan.vanished[kind]]
    _tell(f"changed in {plan.source}, {'to be ' if dry_run else ''}replaced in {plan.folder}", changed)
    _tell(f"in {plan.folder} but not in {plan.source} (vanished, or from another source), kept", vanished)
    if plan.doubles:
        print(f"there twice with the same content, one taken: {plan.doubles}")
    if plan.misnamed:
        print(set_aside(plan.source, plan.misnamed))
    _print_left_alone(plan.left_alone)


def print_photos(plan: Plan, remarks: Sequence[str]) -> None:
    """How many photos the corpus has now, how many of them are complete, what the others lack, their licences."""
    ids = held(plan)
    photos = set().union(*ids.values())
    inputs = ids["RAW"] | ids["rendered input"]
    experts = [ids[f"expert {x}"] for x in plan.release.experts]
    table = Table(title=str(plan.folder), title_justify="left", title_style="bold", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    table.add_row("photos", str(len(photos)), "")
    table.add_row("complete", str(len(inputs.intersection(*experts))), "an input and every expert's picture")
    for kind in ("RAW", *(f"expert {x}" for x in plan.release.experts)):
        _add_missing(table, f"{kind} missing", photos - ids[kind])
    _add_missing(table, "no input", photos - inputs)
    rivals = [photo for photo, files in raw_files(plan.folder / plan.release.layout.raw).items() if len(files) > 1]
    _add_missing(table, "several RAWs", rivals)
    rows = read_photo_table(plan.folder / "photos.csv").rows
    for licence, count in Counter(row["licence"] for row in rows if row["photo_id"] in photos).most_common():
        table.add_row("licence", str(count), licence or "unknown: filesAdobe.txt and filesAdobeMIT.txt would tell")
    _console().print(table)
    for remark in remarks:
        print(remark)
    if ids["rendered input"] and not ids["RAW"]:
        print("no RAW at all: set decode.input to rendered in params.yaml")


def held(plan: Plan) -> dict[str, set[str]]:
    """Ids of the photos that the corpus has a file of, by kind."""
    kinds = {kind: plan.folder / name for kind, name in plan.release.kinds.items()}
    return {
        kind: set(raw_files(folder) if kind == "RAW" else picture_files(folder))
        for kind, folder in kinds.items()
        if kind not in (PAPER, "augmented input")
    }


def size_text(size: int) -> str:
    """Bytes for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _print_left_alone(paths: Sequence[str]) -> None:
    """By folder: a download may hold tens of thousands of files that nobody asked for."""
    if not paths:
        return
    folders: dict[str, list[str]] = {}
    for path in sorted(paths):
        folders.setdefault(path.rstrip("/").rpartition("/")[0], []).append(path)
    print(f"left alone, no part of the release: {len(paths)}")
    largest = sorted(folders, key=lambda folder: -len(folders[folder]))
    for folder in largest[:SHOWN]:
        print(f"  {folder or '.'}/: {_some(folders[folder])}")
    if len(largest) > SHOWN:
        print(f"  and {sum(len(folders[name]) for name in largest[SHOWN:])} in {len(largest) - SHOWN} more folders")


def _add_missing(table: Table, name: str, photos: Collection[str]) -> None:
    if photos:
        table.add_row(name, str(len(photos)), _some(sorted(photos), count=False))


def _tell(what: str, targets: Sequence[str]) -> None:
    if targets:
        print(f"{what}: {_some(targets)}")


def _some(names: Sequence[str], *, count: bool = True) -> str:
    shown = ", ".join(map(spelled, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
    return f"{len(names)} ({shown})" if count else shown


def _console() -> Console:
    return Console(soft_wrap=True, markup=False, highlight=False)
