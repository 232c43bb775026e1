"""What a file of a download is, by its name and its folders': the releases of FiveK and PPR10K as people have them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

RAW_SUFFIXES = frozenset(
    f".{letters}"
    for letters in re.findall(
        r"\w+",
        """3fr ari arq arw bay cap cine cr2 cr3 crw cs1 dc2 dcr dcs dng drf eip erf fff gpr iiq k25 kc2 kdc mdc mef mos
        mrw nef nrw orf ori pef ptx pxn qtk raf raw rdc rw2 rwl rwz sr2 srf srw sti x3f""",
    )
)
PICTURES = {".tif": ".tif", ".tiff": ".tif", ".png": ".png", ".jpg": ".jpg", ".jpeg": ".jpg"}
"""Suffixes of pictures, and how the corpus spells them."""
PAPERS = {
    name.lower(): f"legal/{name}"
    for name in ("filesAdobe.txt", "filesAdobeMIT.txt", "LicenseAdobe.txt", "LicenseAdobeMIT.txt")
}
PAPER = "lists and licences"

_COPY = re.compile(r" ?\(\d+\)$")
"""What browsers add to the name of a second download."""
_BASE = re.compile(r"a\d{4,}-.+")
_EXPERT_FOLDER = re.compile(r"(?:tiff16|experts?)[ _-]?([a-e])", re.I)
_EXPERT_NAME = re.compile(r"(.+?)(?:_|[ _-](?:tiff16|expert)[ _-]?)([a-e])", re.I)
_RENDERED_FOLDER = re.compile(r"(?:tiff16[ _-]?)?(?:rendered|input).*", re.I)
_CATEGORIES = re.compile(r"categories.*(\.txt|\.csv)", re.I)

_ID = re.compile(r"\d+_\d+")
_AUGMENTED = re.compile(r"(\d+_\d+)_\d+")
_PPR10K_FOLDER = re.compile(r"(source)|(source_aug.*)|(target)[ _-]?([a-c])|(masks?(?:_360p)?)|(masks?_full)", re.I)


class Place(NamedTuple):
    """Where a file belongs."""

    kind: str
    """What it is, in words for people: one kind is one folder."""
    target: str
    """Its path inside the corpus's folder."""
    rank: int = 0
    """Of two files for one target that of the lower rank is taken; two of one rank must be the same."""


def fivek_base(name: str) -> str | None:
    """The base (a0001-jmac_DSC1459) of a file's name without suffix, or None if it is no FiveK name."""
    stem = _COPY.sub("", name)
    return stem if _BASE.fullmatch(stem) else None


def place_fivek(parts: Sequence[str], known: Collection[str]) -> Place | None:
    """What the file at `parts` (SOURCE's own name, folders, file name) is; None if it is no part of FiveK.

    A DNG is known by its suffix, a picture by the nearest folder that tells whose it is, or by its name's end (`_c`,
    `-expertC`). `known` are bases that surely exist, since a base may itself end in such a way.
    """
    name = parts[-1]
    stem, suffix = split_suffix(name)
    if name.lower() in PAPERS:
        return Place(PAPER, PAPERS[name.lower()])
    if found := _CATEGORIES.fullmatch(name):
        return Place(PAPER, f"legal/categories{found[1].lower()}")
    base = fivek_base(stem)
    if base is None:
        return None
    if suffix == ".dng":
        return Place("RAW", f"dng/{base}.dng")
    if suffix not in PICTURES:
        return None
    folder = _fivek_folder(parts[:-1])
    named = None if base in known else _EXPERT_NAME.fullmatch(base)
    if named and (named[1] in known or (folder is None and fivek_base(named[1]))):
        letter = named[2].lower()
        # tiff16_c/<base>_d.tif contradicts itself; without a folder's word, <base>_C.jpg is a thumbnail
        if folder not in (None, "rendered", letter) or (folder is None and PICTURES[suffix] != ".tif"):
            return None
        return Place(f"expert {letter}", f"tiff16_{letter}/{named[1]}{PICTURES[suffix]}")
    if folder == "rendered":
        return Place("rendered input", f"rendered/{base}{PICTURES[suffix]}")
    return Place(f"expert {folder}", f"tiff16_{folder}/{base}{PICTURES[suffix]}") if folder else None


def _fivek_folder(folders: Sequence[str]) -> str | None:
    """An expert's letter or "rendered", as the nearest folder tells; a bare letter does not as SOURCE's own name."""
    for depth in range(len(folders) - 1, -1, -1):
        folder = folders[depth]
        if _RENDERED_FOLDER.fullmatch(folder):
            return "rendered"
        if found := _EXPERT_FOLDER.fullmatch(folder):
            return found[1].lower()
        if depth and folder.lower() in {"a", "b", "c", "d", "e"}:
            return folder.lower()
    return None


def place_ppr10k(parts: Sequence[str]) -> Place | None:
    """What the file at `parts` (SOURCE's own name, folders, file name) is; None if it is no part of PPR10K.

    A RAW is known by its suffix, a picture by the nearest folder that tells. A picture without augmentation among the
    augmented ones stands in for a missing source, and a full-size mask for a missing one of the 360p pack.
    """
    stem, suffix = split_suffix(parts[-1])
    stem = _COPY.sub("", stem)
    augmented = _AUGMENTED.fullmatch(stem)
    if not augmented and not _ID.fullmatch(stem):
        return None
    if suffix in RAW_SUFFIXES:
        return None if augmented else Place("RAW", f"raw/{stem}{suffix}")
    told = (_PPR10K_FOLDER.fullmatch(folder) for folder in reversed(parts[:-1]))
    folder = next((found for found in told if found), None)
    if folder is None or suffix not in PICTURES:
        return None
    source, augmentations, target, letter, _, full_mask = folder.groups()
    if augmented:
        return Place("augmented input", f"source_aug/{stem}{PICTURES[suffix]}") if augmentations else None
    if source or augmentations:
        return Place("rendered input", f"source/{stem}{PICTURES[suffix]}", rank=0 if source else 1)
    if target:
        return Place(f"expert {letter.lower()}", f"target_{letter.lower()}/{stem}{PICTURES[suffix]}")
    return Place("mask", f"masks/{stem}.png", rank=1 if full_mask else 0) if suffix == ".png" else None


def split_suffix(name: str) -> tuple[str, str]:
    """Stem and lower-case suffix of a file's name."""
    stem, dot, suffix = name.rpartition(".")
    return (stem, f".{suffix.lower()}") if dot else (name, "")
