"""Bring a download of FiveK or PPR10K into `data/<dataset>/` by hard links, again and again as it grows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from diffretouch.corpus.ingest_dvc import link_type
from diffretouch.corpus.ingest_files import File, can_link, copy, link, remove_leftovers
from diffretouch.corpus.ingest_names import PAPER
from diffretouch.corpus.ingest_papers import merge_photos, read_papers, write_card
from diffretouch.corpus.ingest_plan import Plan, listed, make_plan
from diffretouch.corpus.ingest_report import held, print_photos, print_plan, size_text
from diffretouch.errors import UserError
from diffretouch.progress import track


def ingest(dataset: str, source: Path, root: Path, *, agree: Callable[[str], bool], dry_run: bool = False) -> None:
    """Bring what `source` holds of `dataset` into `root`/`dataset`, and print what was done and what is missing.

    Files are linked where that can be, else copied after `agree(question)`. Stopped at any moment and run again, the
    result is that of a run never stopped. With `dry_run` nothing is written. Raises as `make_plan`, and UserError
    where `agree` says no.
    """
    plan = make_plan(dataset, source, root)
    if dry_run:
        print_plan(plan, dry_run=True)
        for question in questions(plan, _by_device(plan)):
            print(f"would be asked: {question}")
        print("nothing was written: run it again without --dry-run")
        return
    alien = [file for group in _devices(plan) if not can_link(group[0], plan.folder) for file in group]
    for question in questions(plan, alien):
        if not agree(question):
            raise UserError("nothing was written, as you wished")
    remarks = carry_out(plan, alien)
    print_plan(plan)
    print_photos(plan, remarks)
    tracked = root / dataset if (root / f"{dataset}.dvc").exists() else root
    print(f"next: `dvc add {tracked}` (`dvc add --no-relink {tracked}` on ext4), then `dvc repro decode@{dataset}`")


def questions(plan: Plan, alien: list[File]) -> list[str]:
    """What a person has to agree to first, `alien` being the files that cannot be linked."""
    asked = []
    if alien:
        size, free = sum(file.size for file in alien), _free(plan.folder)
        if size > free:
            raise UserError(
                f"{len(alien)} files lie where hard links into {plan.folder} cannot reach, and copies need "
                f"{size_text(size)} where {size_text(free)} are free: make room, or name another place with --root"
            )
        asked.append(
            f"{len(alien)} files ({size_text(size)}) lie where hard links into {plan.folder} cannot reach: on another "
            f"file system, or somebody else's. Copy them? {size_text(free)} are free"
        )
    types = link_type(plan.folder)
    if types and types.own_files_read_only and len(alien) < len(plan.work):
        asked.append(
            f"{types.file} sets cache.type = {','.join(types.types)}: `dvc add` will make the linked files read-only, "
            f"and they are your own files in {plan.source} under a second name (`dvc config --local cache.type "
            "reflink,copy` would leave them as they are). Link them?"
        )
    return asked


def carry_out(plan: Plan, alien: list[File]) -> list[str]:
    """Link, or copy the `alien`; then bring `photos.csv` and the corpus card up to date. Returns remarks for people."""
    release, folder = plan.release, plan.folder
    folders = {folder, *((folder / target).parent for target in plan.files)}
    for path in folders:
        path.mkdir(parents=True, exist_ok=True)
    remove_leftovers({*folders, *(folder / name for name in release.kinds.values())})
    copies = set(alien)
    for target in track(plan.work, f"bring in {folder.name}", len(plan.work)):
        _, file = plan.files[target]
        bring = copy if file in copies else link
        bring(file, folder / target)
    papers = folder / release.kinds[PAPER] if PAPER in release.kinds else None
    facts = read_papers([papers / name for name in listed(papers)]) if papers else {}
    remarks = merge_photos(folder / "photos.csv", release.layout, set().union(*held(plan).values()), facts)
    write_card(folder, folder.name)
    return remarks


def _devices(plan: Plan) -> list[list[File]]:
    """The files to bring in, those of one file system together."""
    files = sorted((plan.files[target][1] for target in plan.work), key=lambda file: file.inode[0])
    return [list(group) for _, group in groupby(files, key=lambda file: file.inode[0])]


def _by_device(plan: Plan) -> list[File]:
    """Files that cannot be linked as far as numbers of file systems tell, without trying."""
    here = _existing(plan.folder).stat().st_dev
    return [file for group in _devices(plan) if group[0].inode[0] != here for file in group]


def _free(folder: Path) -> int:
    return shutil.disk_usage(_existing(folder)).free


def _existing(folder: Path) -> Path:
    return folder if folder.is_dir() else _existing(folder.absolute().parent)
