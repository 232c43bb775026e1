"""decode: every RAW and every expert's picture to sRGB of one size, and a manifest row for each photo.

A run redoes the photos whose files or settings changed, and removes what belongs to none; killed at any moment and run
again, it ends in the bytes of a run that was never killed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from diffretouch.code import code_fingerprint
from diffretouch.config import Corpus, Decode, Params
from diffretouch.corpus.layout import Photo, list_photos, read_card
from diffretouch.corpus.split import list_warnings, read_split_list, split_by
from diffretouch.decoding.ledger import Journal, Record, read_records, write_records
from diffretouch.decoding.photo import Settings, quarantined
from diffretouch.decoding.task import Task, lost, sources_of, up_to_date, work
from diffretouch.errors import PhotoError, UserError
from diffretouch.executors import run_everywhere
from diffretouch.files.atomic import write_json
from diffretouch.files.raw import LIBRAW
from diffretouch.files.tables import write_table
from diffretouch.files.workspace import beacon_file, corpus_dir, journal_file, records_file, stage_dir
from diffretouch.progress import track

# how much is used, and what counts as too slow or too broken, changes no picture
NOT_IN_PICTURES = {"max_quarantined_share", "cpu_seconds"}
# the modules that decide over pixels
FILES = ("raw", "raw_checks", "exif", "pictures", "formats", "icc", "srgb")
CODE = ("decoding", "registration.py", *(f"files/{name}.py" for name in FILES))
EMPTY: dict[str, Any] = {
    "status": "ok",
    "kind": "",
    "reason": "",
    "width": 0,
    "height": 0,
    "camera": "",
    "licence": "",
    "categories": "",
    "iso": 0.0,
    "shutter_s": 0.0,
    "aperture": 0.0,
    "focal_mm": 0.0,
    "lens": "",
    "taken": "",
    "white_balance": "",
    "input": None,
}


def run(params: Params, dataset: str) -> None:
    """Decode `data/<dataset>` into `work/decode/<dataset>`; UserError when too many photos cannot be used."""
    corpus, source, out = params.corpus(dataset), corpus_dir(dataset), stage_dir("decode", dataset)
    card = read_card(source)
    photos = list_photos(source, corpus.experts, rendered=params.decode.input == "rendered")
    placed = place(photos, corpus, source)
    wanted = [photo for photo in photos if placed[photo.photo_id]["status"] == "ok"]

    journal, digest = Journal(journal_file(dataset)), settings_digest(params.decode, corpus)
    finished, kept = out / "manifest.parquet", records_file(dataset)
    before = read_records(kept) if finished.exists() and kept.exists() else journal.records
    current = {p.photo_id for p in wanted if up_to_date(p, before.get(p.photo_id), journal.digests, digest, out)}
    todo = [photo for photo in wanted if photo.photo_id not in current]
    if finished.exists() and (todo or before.keys() - current):
        # until all is done, the journal is the truth
        journal.begin(before)
        finished.unlink()

    settings = Settings(out, params.decode, corpus)
    tasks = [_task(photo, before.get(photo.photo_id), settings, digest, journal) for photo in todo]
    doing = run_everywhere(
        work,
        tasks,
        runtime=params.runtime,
        code=CODE,
        beacon=beacon_file(dataset),
        lost=lost,
        cpu_seconds=params.decode.cpu_seconds,
    )
    for done in track(doing, f"decode {dataset}", len(wanted), "photos", len(current)):
        journal.add(done.photo_id, done.record, done.stamps)

    records = {photo.photo_id: journal.records.get(photo.photo_id) or before[photo.photo_id] for photo in wanted}
    remove_strangers(out, {file for record in records.values() for file in record.files})
    manifest = make_manifest(photos, placed, records, corpus)
    if not finished.exists():
        write_records(kept, records)
    named = {"decode_profile": params.decode.profile, "decode_settings": params.decode.rendering}
    facts = {**card.model_dump(), **named, "input": params.decode.input}
    write_json(out / "corpus.json", facts)
    write_table(finished, manifest)
    journal.end([file for photo in wanted for file in _files(photo, records[photo.photo_id], out)])
    tell(manifest, records, corpus, dataset, params.decode.max_quarantined_share)


def _task(photo: Photo, before: Record | None, settings: Settings, digest: str, journal: Journal) -> Task:
    """With the digests that are known of the photo's files, so that its worker reads no unchanged one."""
    known = journal.digests.known
    paths = [str(path) for path in _files(photo, before, settings.out)]
    return Task(photo, settings, digest, {path: known[path] for path in paths if path in known}, before)


def place(photos: list[Photo], corpus: Corpus, source: Path) -> dict[str, dict[str, Any]]:
    """Of every photo its split, or why it has none: it is left out by the split list, or its id holds no number."""
    listed = None if corpus.split.list is None else read_split_list(source / corpus.split.list)
    for warning in list_warnings(listed or {}, {photo.photo_id: photo.group for photo in photos}):
        print(f"NOTE: {warning}", file=sys.stderr)
    placed: dict[str, dict[str, Any]] = {}
    for photo in photos:
        try:
            split = split_by(photo.photo_id, photo.group, corpus.split, listed)
            left_out = {"status": "left_out", "kind": "split", "reason": f"not on the split list {corpus.split.list}"}
            placed[photo.photo_id] = {"split": split or "", "status": "ok"} | ({} if split else left_out)
        except PhotoError as error:
            placed[photo.photo_id] = {"split": "", **quarantined(str(error), "split")}
    return placed


def settings_digest(decode: Decode, corpus: Corpus) -> str:
    """Digest of everything but its files that a photo's pictures depend on: parameters, code, LibRaw."""
    parts = {
        "decode": decode.model_dump(mode="json", exclude=NOT_IN_PICTURES),
        "corpus": corpus.model_dump(mode="json", include={"experts", "short_edge", "untagged"}),
        "code": code_fingerprint(CODE),
        "libraw": LIBRAW,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def remove_strangers(out: Path, files: set[str]) -> None:
    """Remove what belongs to no photo of this run: photos that are gone, and what a killed run left half-written."""
    for path in (*out.glob("*/*"), *out.glob(".*")):
        if path.relative_to(out).as_posix() not in files:
            path.unlink()


def make_manifest(
    photos: list[Photo], placed: dict[str, dict[str, Any]], records: dict[str, Record], corpus: Corpus
) -> pd.DataFrame:
    """A row for every photo, sorted by id."""
    empty = EMPTY | {f"expert_{x}": None for x in corpus.experts} | {"mask": None}
    rows = []
    for photo in photos:
        made = records[photo.photo_id].row if photo.photo_id in records else {}
        row = {"photo_id": photo.photo_id, "group": photo.group, "split": "", **empty, **placed[photo.photo_id], **made}
        row |= {"licence": photo.licence, "categories": photo.categories, "camera": row["camera"] or photo.camera}
        rows.append({name: value for name, value in row.items() if name != "untagged"})
    return pd.DataFrame(rows).sort_values("photo_id", ignore_index=True)


def tell(manifest: pd.DataFrame, records: dict[str, Record], corpus: Corpus, dataset: str, allowed: float) -> None:
    """Say what a person should know of the outcome; UserError when too many photos cannot be used."""
    untagged = Counter(role for record in records.values() for role in record.row.get("untagged", ()))
    if untagged:
        words = ", ".join(f"{count} of {role}" for role, count in sorted(untagged.items()))
        print(f"pictures without an ICC profile, taken as {corpus.untagged} (corpora.{dataset}.untagged): {words}")
    left_out = int((manifest["status"] == "left_out").sum())
    if left_out:
        print(f"{left_out} photos are left out: they are not on the split list {corpus.split.list}")
    bad = manifest[manifest["status"] == "quarantined"]
    for photo_id, reason in zip(bad["photo_id"], bad["reason"], strict=True):
        print(f"quarantined {photo_id}: {reason}")
    if len(bad) > allowed * (len(manifest) - left_out):
        kinds = ", ".join(f"{count} {kind}" for kind, count in bad["kind"].value_counts().items())
        raise UserError(
            f"{len(bad)} of {len(manifest)} photos of {dataset} cannot be used ({kinds}), more than "
            f"decode.max_quarantined_share {allowed}: mend the files named above, or allow more in params.yaml (what "
            f"is decoded is kept), then `dvc repro decode@{dataset}`"
        )


def _files(photo: Photo, record: Record | None, out: Path) -> list[Path]:
    """Every file a photo is made of and every file made of it."""
    return [*sources_of(photo).values(), *(out / file for file in (record.files if record else ()))]
