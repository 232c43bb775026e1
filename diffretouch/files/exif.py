"""What a photo's file says about itself: EXIF through exifread, a DNG's own tags through tifffile."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import exifread
import tifffile
from exifread.core.exceptions import ExifError

from diffretouch.errors import PhotoError
from diffretouch.files.pictures import UNREADABLE

for library in ("exifread", "tifffile"):  # what they say of a damaged file, the file itself says when it is read
    logging.getLogger(library).setLevel(logging.CRITICAL)
# DNG 1.4 (and 1.7 for the compression): tag numbers
DNG_VERSION, COMPRESSION, ACTIVE_AREA = 50706, 259, 50829
CROP_ORIGIN, CROP_SIZE, BASELINE_EXPOSURE = 50719, 50720, 50730
JPEG_XL = 52546
RATIONALS = (5, 10)

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Exif:
    """What was found; empty, 0 or None where the file says nothing or its tags are damaged."""

    camera: str = ""
    """Maker and model, the maker not said twice."""
    lens: str = ""
    iso: float = 0.0
    folders: tuple[dict[int, Numbers], ...] = field(default=())
    """Of a DNG the numbers in its tags, first folder first, then those below it, one of which is the full picture's."""
    data_end: int = 0
    """Of a DNG where in the file its pictures' data should end."""

    @property
    def is_dng(self) -> bool:
        """Whether the file calls itself a DNG."""
        return bool(self.folders)

    @property
    def jpeg_xl(self) -> bool:
        """Whether a DNG's picture is compressed with JPEG XL."""
        return any(folder.get(COMPRESSION) == (JPEG_XL,) for folder in self.folders)

    @property
    def baseline_exposure(self) -> float:
        """A DNG's BaselineExposure in stops."""
        return next((folder[BASELINE_EXPOSURE][0] for folder in self.folders if folder.get(BASELINE_EXPOSURE)), 0.0)

    @property
    def default_crop(self) -> tuple[float, float, float, float] | None:
        """Left, top, right, bottom of a DNG's default crop on the whole sensor, before it is turned; None without one.

        DefaultCropOrigin and DefaultCropSize count from the corner of ActiveArea.
        """
        for folder in self.folders:
            if len(size := folder.get(CROP_SIZE, ())) == 2:
                left, top, *_ = *folder.get(CROP_ORIGIN, ()), 0.0, 0.0
                above, before, *_ = *folder.get(ACTIVE_AREA, ()), 0.0, 0.0
                return before + left, above + top, before + left + size[0], above + top + size[1]
        return None


def read_exif(path: Path) -> Exif:
    """What the file at `path` says; nothing where its EXIF is damaged, for that decides over no pixel.

    PhotoError for a DNG whose own tags are damaged, which do.
    """
    try:
        with path.open("rb") as file:
            tags = exifread.process_file(file, details=False, extract_thumbnail=False)
    except (*UNREADABLE, ExifError, AssertionError):
        return Exif()
    text = {name: str(tag).strip().strip("\0").strip() for name, tag in tags.items()}
    make, model = text.get("Image Make", ""), text.get("Image Model", "")
    known = not make or model.lower().startswith(make.split()[0].lower())
    iso = text.get("EXIF ISOSpeedRatings") or text.get("Image ISOSpeedRatings") or ""
    return Exif(
        camera=(model if known else f"{make} {model}".strip()) or text.get(f"Image Tag 0x{50708:X}", ""),
        lens=text.get("EXIF LensModel") or text.get("EXIF LensSpecification", ""),
        iso=float(iso) if iso.isdecimal() else 0.0,
        **(_dng(path) if f"Image Tag 0x{DNG_VERSION:X}" in text else {}),
    )


def _dng(path: Path) -> dict[str, Any]:
    try:
        with tifffile.TiffFile(path) as tiff:
            first = tiff.pages.first
            pages = (first, *(first.pages or ()))
            ends = (sum(part) for page in pages for part in zip(page.dataoffsets, page.databytecounts, strict=True))
            return {"folders": tuple(_numbers(page) for page in pages), "data_end": max(ends, default=0)}
    except (*UNREADABLE, ArithmeticError) as error:
        # without them the crop, the exposure and where the data end would be guessed
        raise PhotoError(f"the DNG tags of {path.name} are damaged: {error}", "unreadable") from error


def _numbers(page: Any) -> dict[int, Numbers]:
    wanted = COMPRESSION, ACTIVE_AREA, CROP_ORIGIN, CROP_SIZE, BASELINE_EXPOSURE
    return {code: _as_floats(page.tags[code]) for code in wanted if code in page.tags}


def _as_floats(tag: Any) -> Numbers:
    values = tag.value if isinstance(tag.value, tuple) else (tag.value,)
    if not all(isinstance(value, int | float) for value in values):
        raise ValueError(f"{tag.name} holds {tag.value!r}, no number")
    if tag.dtype in RATIONALS:
        return tuple(
            float(top) / float(bottom) for top, bottom in zip(values[::2], values[1::2], strict=True) if bottom
        )
    return tuple(float(value) for value in values)
