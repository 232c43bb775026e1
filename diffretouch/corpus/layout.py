"""Where a corpus keeps what: the real layouts of FiveK and PPR10K under `data/<dataset>/`."""

from __future__ import annotations

import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict

from diffretouch.corpus.photo_table import read_photo_table
from diffretouch.errors import UserError

SIDECARS = {".jpg", ".jpeg", ".png", ".xmp", ".pp3", ".dop", ".txt", ".csv", ".json", ".yaml", ".db", ".ini"}
SHOWN = 5
PICTURE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")


class Layout(NamedTuple):
    """Names of a corpus's folders."""

    raw: str
    rendered: str
    """Finished pictures of the input, a Lightroom's exports for instance."""
    expert: str
    """Prefix before an expert's letter."""


FIVEK = Layout("dng", "rendered", "tiff16_")
PPR10K = Layout("raw", "source", "target_")


class CorpusCard(BaseModel):
    """`corpus.yaml`: what the corpus is and where it comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    provenance: Literal["real", "simulated"]
    licence: str
    notes: str = ""


@dataclass(frozen=True)
class Photo:
    """One photo of a corpus: its input and what the experts made of it. Paths may not exist; decoding says so."""

    photo_id: str
    group: str
    raw: Path
    experts: dict[str, Path]
    mask: Path | None
    licence: str
    categories: str
    camera: str
    rendered: Path | None = None
    """The finished picture of the input, where the corpus has one."""
    problem: str = ""
    """Why the photo cannot be used, where its files' names alone say so."""


def read_card(root: Path) -> CorpusCard:
    """The corpus card in `root`; UserError when it is absent or does not fit."""
    path = root / "corpus.yaml"
    if not path.exists():
        raise UserError(
            f"{path} not found: write the demo with `diffretouch demo-data`, or bring a corpus into {root}/ with "
            f"`diffretouch ingest {root.name} FOLDER`"
        )
    try:
        return CorpusCard.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} does not fit (name, provenance real|simulated, licence, notes): {error}") from error


def list_photos(root: Path, experts: Sequence[str], *, rendered: bool = False) -> list[Photo]:
    """Every photo of the corpus in `root`, sorted by id: those with a RAW file and those of `photos.csv`.

    With `rendered` also those with a finished picture of the input only. Every folder is listed once and no file is
    opened. UserError when the folder of the inputs is absent or empty.
    """
    layout = find_layout(root)
    inputs = root / (layout.rendered if rendered else layout.raw)
    if not inputs.is_dir():
        other = "raw" if rendered else "rendered"
        raise UserError(f"{inputs}/ not found: bring the photos there, or set decode.input: {other} in params.yaml")
    raws, finished = raw_files(root / layout.raw), picture_files(root / layout.rendered)
    targets = {x: (root / f"{layout.expert}{x}", picture_files(root / f"{layout.expert}{x}")) for x in experts}
    masks = picture_files(root / "masks", (".png",))
    facts = {row["photo_id"]: row for row in read_photo_table(root / "photos.csv").rows}
    photos = []
    for photo_id in sorted(raws.keys() | facts.keys() | (finished.keys() if rendered else set())):
        fact, found = facts.get(photo_id, {}), raws.get(photo_id, [])
        photos.append(
            Photo(
                photo_id=photo_id,
                group=fact.get("group") or group_of(layout, photo_id),
                raw=found[0] if found else root / layout.raw / f"{photo_id}.dng",
                experts={
                    x: files.get(photo_id) or folder / f"{photo_id}.tif" for x, (folder, files) in targets.items()
                },
                mask=masks.get(photo_id),
                licence=fact.get("licence", ""),
                categories=fact.get("categories", ""),
                camera=fact.get("camera") or camera_of(layout, photo_id),
                rendered=finished.get(photo_id),
                problem="" if rendered else _rivals(found),
            )
        )
    if not photos:
        raise UserError(f"{inputs} is empty")
    return photos


def find_layout(root: Path) -> Layout:
    """Whose layout `root` follows, by its folders' names; UserError when it holds none of them."""
    held = {entry.name for entry in os.scandir(root) if entry.is_dir()} if root.is_dir() else set()
    for layout in (FIVEK, PPR10K):
        if layout.raw in held:
            return layout
    for layout in (FIVEK, PPR10K):
        if layout.rendered in held or any(name.startswith(layout.expert) for name in held):
            return layout
    raise UserError(
        f"{root} holds neither dng/ (FiveK's layout) nor raw/ (PPR10K's), nor rendered/ or source/: "
        f"bring a corpus there with `diffretouch ingest {root.name} FOLDER`"
    )


def group_of(layout: Layout, photo_id: str) -> str:
    """The scene: a PPR10K id's group; every FiveK photo is its own."""
    return photo_id if layout is FIVEK else photo_id.split("_")[0]


def camera_of(layout: Layout, photo_id: str) -> str:
    """What a FiveK name tells of the camera (a0001-jmac_DSC1459: jmac_DSC1459); nothing in PPR10K."""
    return re.sub(r"^[a-z]*\d+[-_]?", "", photo_id) if layout is FIVEK else ""


def raw_files(folder: Path) -> dict[str, list[Path]]:
    """RAW files in `folder` by stem, sorted by name; not what editors and systems leave beside them."""
    raws = defaultdict(list)
    for name in _names(folder):
        stem, suffix = _cut(name)
        if suffix not in SIDECARS:
            raws[stem].append(folder / name)
    return raws


def picture_files(folder: Path, suffixes: Sequence[str] = PICTURE_SUFFIXES) -> dict[str, Path]:
    """Pictures in `folder` by stem; of several with one stem that whose suffix comes first in `suffixes`."""
    best: dict[str, tuple[int, str]] = {}
    ranks = {suffix: rank for rank, suffix in enumerate(suffixes)}
    for name in _names(folder):
        stem, suffix = _cut(name)
        rank = ranks.get(suffix)
        if rank is not None and (stem not in best or rank < best[stem][0]):
            best[stem] = rank, name
    return {stem: folder / name for stem, (_, name) in best.items()}


def _rivals(raws: Sequence[Path]) -> str:
    if len(raws) < 2:
        return ""
    return f"{len(raws)} RAW files have its name: {', '.join(path.name for path in raws)}: keep one of them"


def _cut(name: str) -> tuple[str, str]:
    """Stem and lower-case suffix; a tenth of the time of Path's."""
    stem, dot, suffix = name.rpartition(".")
    return (stem, f".{suffix.lower()}") if dot else (name, "")


def spelled(name: str) -> str:
    """A file's name as it can be written anywhere: itself, but for bytes that are no UTF-8, which become \\xNN."""
    return os.fsencode(name).decode(errors="backslashreplace")


def set_aside(folder: Path, names: Sequence[str]) -> str:
    """What to tell people of the `names` in `folder` that are no UTF-8."""
    shown = ", ".join(map(spelled, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
    return f"set aside in {folder}, for their names are no UTF-8: {len(names)} ({shown}); rename them"


def _names(folder: Path) -> list[str]:
    """Names of the files in `folder`, sorted; none where it is absent. Hidden ones are left out, and those that are no
    UTF-8, as is said on stderr.
    """
    names = sorted(_visible(folder)) if folder.is_dir() else []
    if odd := [name for name in names if spelled(name) != name]:
        print(f"NOTE: {set_aside(folder, odd)}", file=sys.stderr)
        return [name for name in names if spelled(name) == name]
    return names


def _visible(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from (entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())
