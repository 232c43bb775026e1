"""What bringing in a download takes: its files by where they belong, compared with what the corpus has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from diffretouch.corpus.ingest_files import File, State, quick_state, same_content, slow_state, walk
from diffretouch.corpus.ingest_names import PAPER, Place, fivek_base, place_fivek, place_ppr10k, split_suffix
from diffretouch.corpus.ingest_papers import read_papers
from diffretouch.corpus.layout import FIVEK, PPR10K, Layout, read_card, set_aside, spelled
from diffretouch.corpus.photo_table import read_photo_table
from diffretouch.errors import ConfigError, UserError
from diffretouch.progress import track

CARD = "corpus.yaml"


class Release(NamedTuple):
    """A published corpus."""

    layout: Layout
    experts: str
    kinds: dict[str, str]
    """Folders by kind of file."""
    expected: str
    """What a download looks like, for people."""


RELEASES = {
    "fivek": Release(
        FIVEK,
        "abcde",
        {"RAW": "dng", **{f"expert {x}": f"tiff16_{x}" for x in "abcde"}, "rendered input": "rendered", PAPER: "legal"},
        "a0001-NAME.dng anywhere; an expert's a0001-NAME.tif in a folder tiff16_c, expert_c, expertC or c, or named "
        "a0001-NAME_c.tif; rendered inputs in a folder rendered or input...; filesAdobe.txt, filesAdobeMIT.txt, "
        "categories.txt",
    ),
    "ppr10k": Release(
        PPR10K,
        "abc",
        {
            "RAW": "raw",
            **{f"expert {x}": f"target_{x}" for x in "abc"},
            "rendered input": "source",
            "augmented input": "source_aug",
            "mask": "masks",
        },
        "RAW files 12_3.CR2 (.NEF, .ARW, ...) anywhere; pictures 12_3.tif in folders source, source_aug..., target_a, "
        "target_b, target_c; masks 12_3.png in a folder masks, masks_360p or masks_full",
    ),
}


@dataclass
class Plan:
    """What a run has to do, and what it leaves alone."""

    release: Release
    source: Path
    folder: Path
    """Of the corpus."""
    files: dict[str, tuple[Place, File]] = field(default_factory=dict)
    """By target, a path below `folder`."""
    left_alone: list[str] = field(default_factory=list)
    """Paths below `source` that are no part of the release, or not looked into."""
    misnamed: list[str] = field(default_factory=list)
    """As `left_alone`, those whose names are no UTF-8."""
    doubles: int = 0
    """Files that are there twice, with the same content."""
    states: dict[str, State] = field(default_factory=dict)
    """By target."""
    vanished: dict[str, list[str]] = field(default_factory=dict)
    """Targets that the corpus has and the source has not, by kind."""

    @property
    def work(self) -> list[str]:
        """Targets to link or copy."""
        return [target for target, state in self.states.items() if state != "there"]


def make_plan(dataset: str, source: Path, root: Path) -> Plan:
    """Look through `source` and compare it with `root`/`dataset`; nothing is written.

    ConfigError for an unknown dataset; UserError where `source` holds nothing of it, where two different files of it
    belong to one place, where a list or `photos.csv` cannot be read, or where `root`/`dataset` is a simulated corpus.
    """
    if dataset not in RELEASES:
        raise ConfigError(f"no corpus {dataset!r} can be brought in: known are {', '.join(RELEASES)}")
    plan = Plan(RELEASES[dataset], source, root / dataset)
    _refuse(plan)
    found = list(walk(source, plan.folder))
    files = [file for file in found if isinstance(file, File)]
    _sort_out(plan, files)
    for path in (path for path in found if isinstance(path, str)):
        (plan.left_alone if spelled(path) == path else plan.misnamed).append(path)
    if not plan.files:
        more = f", {set_aside(source, plan.misnamed)}" if plan.misnamed else ""
        raise UserError(
            f"{source} holds nothing of {dataset} ({len(found)} files seen{more}). Expected: {plan.release.expected}"
        )
    _refuse_mixing(plan, files)
    # a table or list that cannot be read is said before anything is written
    read_photo_table(plan.folder / "photos.csv")
    read_papers(Path(file.path) for at, file in plan.files.values() if at.kind == PAPER)
    _compare(plan)
    return plan


def _refuse(plan: Plan) -> None:
    source, folder = plan.source, plan.folder
    if not source.is_dir():
        raise UserError(f"{source} {'is a file: unpack it, and name the folder' if source.exists() else 'not found'}")
    if folder.resolve() in (source.resolve(), *source.resolve().parents):
        raise UserError(f"{source} is the corpus itself: name the folder of the download")


def _refuse_mixing(plan: Plan, files: Sequence[File]) -> None:
    """UserError where real and simulated photos would share the corpus; a card tells of all that lies below it."""
    folder = plan.folder
    cards = [file.path.removesuffix(CARD) for file in files if file.parts[-1] == CARD]
    above = [card for card in cards if any(file.path.startswith(card) for _, file in plan.files.values())]
    made = tuple(card for card in above if _is_simulated(Path(card)))
    simulated = [file.path for _, file in plan.files.values() if file.path.startswith(made)]
    if (folder / CARD).exists() and _is_simulated(folder):
        if len(simulated) < len(plan.files):
            raise UserError(
                f"{folder} is a simulated corpus, which real photos must not mix with: remove it (`rm -r {folder}`; "
                "`diffretouch demo-data` brings both back) or name another place with --root"
            )
    elif simulated:
        guilty = next(card for card in made if simulated[0].startswith(card))
        raise UserError(
            f"{guilty}{CARD} says that its photos are simulated: they must not mix with real ones, and {folder} "
            "is not simulated; name a place with a simulated corpus with --root (`diffretouch demo-data --root ...`)"
        )


def _is_simulated(folder: Path) -> bool:
    return read_card(folder).provenance == "simulated"


def _sort_out(plan: Plan, files: Sequence[File]) -> None:
    place, clashes = _placing(plan, files), []
    for file in files:
        at = place(file.parts)
        if at is None:
            plan.left_alone.append("/".join(file.parts[1:]))
            continue
        before, first = plan.files.setdefault(at.target, (at, file))
        if first is file:
            continue
        if same_content(first, file):
            plan.doubles += 1
        elif at.rank == before.rank:
            clashes.append(f"{at.target}: {first.path} and {file.path}")
        else:
            better, worse = (file, first) if at.rank < before.rank else (first, file)
            plan.files[at.target] = (at if better is file else before, better)
            plan.left_alone.append("/".join(worse.parts[1:]))
    if clashes:
        raise UserError(
            f"{len(clashes)} places in {plan.folder} have two files with different content; move one of the two away:\n"
            + "\n".join(f"  {clash}" for clash in clashes[:10])
        )


def _placing(plan: Plan, files: Sequence[File]) -> Callable[[Sequence[str]], Place | None]:
    if plan.release.layout is PPR10K:
        return place_ppr10k
    names = [file.parts[-1] for file in files] + listed(plan.folder / FIVEK.raw)
    stems = (stem for stem, suffix in map(split_suffix, names) if suffix == ".dng")
    known = frozenset(base for base in map(fivek_base, stems) if base)
    return lambda parts: place_fivek(parts, known)


def _compare(plan: Plan) -> None:
    unsure = []
    for target, (_, file) in plan.files.items():
        state = quick_state(file, plan.folder / target)
        if state is None:
            unsure.append(target)
        else:
            plan.states[target] = state
    for target in track(unsure, "compare with what is there", len(unsure)):
        plan.states[target] = slow_state(plan.files[target][1], plan.folder / target)
    for kind, name in plan.release.kinds.items():
        here = (f"{name}/{file}" for file in listed(plan.folder / name))
        plan.vanished[kind] = [target for target in here if target not in plan.files]


def listed(folder: Path) -> list[str]:
    """Names in `folder`, sorted, hidden ones left out; none where it is absent."""
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []
