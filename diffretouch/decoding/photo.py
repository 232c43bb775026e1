"""One photo: its RAW (or rendered input) and its experts' pictures, checked, brought to one size, written."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffretouch.config import Corpus, Decode
from diffretouch.corpus.layout import Photo
from diffretouch.errors import PhotoError
from diffretouch.files import pictures, raw
from diffretouch.files.atomic import whole
from diffretouch.files.exif import read_exif
from diffretouch.files.raw_checks import check_filled
from diffretouch.files.srgb import srgb_encode
from diffretouch.registration import check_registration

Picture16 = NDArray[np.uint16]
Size = tuple[int, int]
"""Height and width."""
STRIP = 256
THUMBNAIL = 320
# a float32 picture, two 16-bit ones and their edges, bytes a pixel
BYTES_A_PIXEL = 12 + 2 * 6 + 2 * 4


@dataclass(frozen=True)
class Settings:
    """What the pictures of a photo depend on, beside its files."""

    out: Path
    decode: Decode
    corpus: Corpus


@dataclass(frozen=True)
class Decoded:
    """What became of one photo."""

    row: dict[str, Any]
    """Its part of the manifest (status, kind, reason, width, height, what the camera says, paths below `out`), and
    `untagged`: the columns whose picture carries no ICC profile."""
    files: tuple[str, ...] = ()
    """Everything written for it, below `out`."""


def decode_photo(photo: Photo, settings: Settings, reserve: Callable[[int], None]) -> Decoded:
    """Write the pictures of `photo`; what cannot be used is quarantined with a reason and a thumbnail.

    `reserve` is told how many bytes it will take, before it takes them.
    """
    try:
        if photo.problem:
            raise PhotoError(photo.problem, "picture")
        return _decode(photo, settings, reserve)
    except PhotoError as error:
        thumbnail = settings.out / "quarantine" / f"{photo.photo_id}.jpg"
        files = (str(thumbnail.relative_to(settings.out)),) if _write_thumbnail(photo, thumbnail) else ()
        return Decoded(quarantined(str(error), error.kind), files)


def quarantined(reason: str, kind: str) -> dict[str, Any]:
    """The row of a photo that cannot be used."""
    return {"status": "quarantined", "kind": kind, "reason": reason}


def _decode(photo: Photo, settings: Settings, reserve: Callable[[int], None]) -> Decoded:
    sources = {f"expert_{x}": path for x, path in photo.experts.items()}
    if photo.mask is not None:
        sources["mask"] = photo.mask
    sizes = {name: pictures.read_size(path) for name, path in sources.items()}
    source, row = _open_input(photo, settings, reserve, sizes)
    size = _common_size(source.size, sizes, settings.decode.input, settings.corpus.short_edge)
    untagged = [] if source.tagged else ["input"]
    # one picture at a time; what was written of a photo that then proves unusable, the stage sweeps away
    image = source.at(size)
    row["input"] = _write("input", photo.photo_id, image, settings)
    edges = _grey(image)
    del source  # LibRaw's output: as large as a picture
    for name, path in sources.items():
        if name == "mask":
            row[name] = _write(name, photo.photo_id, _at(pictures.read_mask(path), size), settings)
            continue
        image, tagged = _read_expert(path, size, settings.corpus.untagged)
        untagged += [] if tagged else [name]
        _check_expert(name, image, edges, settings.decode.registration)
        row[name] = _write(name, photo.photo_id, image, settings)
    files = tuple(row[name] for name in ("input", *sources))
    return Decoded(ok(size) | row | {"untagged": untagged}, files)


def ok(size: Size) -> dict[str, Any]:
    """The start of the row of a photo that can be used."""
    return {"status": "ok", "kind": "", "reason": "", "height": size[0], "width": size[1]}


def _check_expert(name: str, image: Picture16, edges: NDArray[np.float32], limit: float | None) -> None:
    """PhotoError where an expert's picture is empty or does not lie on the photo."""
    check_filled(image, name)
    fault = None if limit is None else check_registration(edges, _grey(image), limit)
    if fault is not None:
        raise PhotoError(f"{name} {fault}", "registration")


@dataclass(frozen=True)
class Input:
    """The photo before any expert touched it."""

    size: Size
    """At full size."""
    at: Callable[[Size], Picture16]
    """Its sRGB pixels at another size."""
    tagged: bool = True


def _open_input(
    photo: Photo, settings: Settings, reserve: Callable[[int], None], sizes: dict[str, Size]
) -> tuple[Input, dict[str, Any]]:
    """The input and what its file says of the camera."""
    largest = max((height * width for height, width in sizes.values()), default=0)
    if settings.decode.input == "rendered":
        if photo.rendered is None:
            raise PhotoError(f"no rendered input for {photo.photo_id}: decode.input is rendered", "missing")
        size = pictures.read_size(photo.rendered)
        reserve(BYTES_A_PIXEL * max(largest, size[0] * size[1]))
        opened = pictures.read_linear(photo.rendered, settings.corpus.untagged)
        exif = read_exif(photo.rendered)
        facts = {"camera": exif.camera, "lens": exif.lens, "iso": exif.iso, "white_balance": "rendered"}
        return Input(size, lambda to: _encode(_at(opened.rgb_linear, to)), opened.tagged), facts
    smallest = min(sizes.values(), default=None)

    def small(size: Size) -> bool:
        """Whether the half-size picture is still large enough."""
        height, width = _target(size, smallest or size, settings.corpus.short_edge)
        return settings.decode.half_size and 2 * height <= size[0] and 2 * width <= size[1]

    developed = raw.develop(
        photo.raw,
        demosaic=settings.decode.demosaic,
        highlights=settings.decode.highlights,
        half_size=small,
        reserve=lambda needed: reserve(max(needed, BYTES_A_PIXEL * largest)),
    )
    stops = developed.facts.baseline_exposure if settings.decode.baseline_exposure else 0.0
    facts = asdict(developed.facts)
    del facts["mosaic"], facts["flip"], facts["baseline_exposure"]
    return Input(developed.size, lambda to: _developed_at(developed, to, stops)), facts


def _common_size(own: Size, sizes: dict[str, Size], kind: str, short_edge: int | None) -> Size:
    """The size that all of the photo's pictures are brought to; PhotoError where they are not of one shape.

    Without `short_edge` all have one size. With it smaller ones (PPR10K's 360p pack beside its RAWs) fit too, when
    their short edge is as long as that and their long edge is right to within a pixel at decoded size.
    """
    what = "the RAW decodes to" if kind == "raw" else "the rendered input is"
    for name, (height, width) in sizes.items():
        if not _fits((height, width), own, short_edge):
            turned = _fits((width, height), own, short_edge)
            word, kind = ("orientation", "orientation") if turned else ("size mismatch", "size")
            raise PhotoError(f"{word}: {name} is {width}x{height}, but {what} {own[1]}x{own[0]}", kind)
    return _target(own, min(sizes.values(), default=own), short_edge)


def _fits(size: Size, own: Size, short_edge: int | None) -> bool:
    if short_edge is None or min(size) < short_edge - 1:
        return size == own
    down, across = (edge * short_edge / min(own) for edge in own)
    scale = short_edge / min(size)
    return abs(size[0] * scale - down) <= 1 and abs(size[1] * scale - across) <= 1


def _target(own: Size, smallest: Size, short_edge: int | None) -> Size:
    """The smaller of the two sizes, reduced to the short edge."""
    height, width = min(own, smallest)
    if short_edge is None or min(height, width) <= short_edge:
        return height, width
    scale = short_edge / min(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _developed_at(developed: raw.Developed, size: Size, stops: float) -> Picture16:
    """LibRaw's linear light at `size`, encoded as sRGB, times two to the power of `stops`."""
    light, box = developed.rgb16_linear, developed.box
    left, top, right, bottom = (int(edge) for edge in box)
    if (bottom - top, right - left) == size and all(float(edge).is_integer() for edge in box):
        image = np.empty((*size, 3), np.uint16)
        curve = _curve(stops)
        for row in range(0, size[0], STRIP):
            strip = light[top + row : min(top + row + STRIP, bottom), left:right]
            image[row : row + STRIP] = curve[strip]
        return image
    planes = [pictures.resize(light[..., k].astype(np.float32), size, box) for k in range(light.shape[2])]
    gain = np.float32(2**stops / 65535)
    if len(planes) == 1:  # monochrome
        planes *= 3
    return _encode(np.stack(planes, axis=-1) * gain)


@cache
def _curve(stops: float) -> NDArray[np.uint16]:
    """Of every 16-bit linear value the 16-bit sRGB one: the exact curve of IEC 61966-2-1."""
    light = np.minimum(np.arange(65536) / 65535 * 2.0**stops, 1)
    return pictures.to_uint(srgb_encode(light), 16)


def _encode(rgb_linear: NDArray[np.float32]) -> Picture16:
    """Linear light, which is overwritten, to 16-bit sRGB; what lies outside is clipped."""
    return pictures.to_uint(srgb_encode(rgb_linear, out=rgb_linear), 16)


def _read_expert(path: Path, size: Size, untagged: pictures.Space) -> tuple[Picture16, bool]:
    """An expert's picture in 16-bit sRGB at `size`, and whether it carries a profile."""
    opened = pictures.read_linear(path, untagged)
    return _encode(_at(opened.rgb_linear, size)), opened.tagged


def _grey(image: Picture16) -> NDArray[np.float32]:
    """(H,W) in [0,1], for looking at edges."""
    weights = np.array([0.25, 0.5, 0.25], np.float32) / np.float32(65535)
    grey = np.empty(image.shape[:2], np.float32)
    for row in range(0, len(grey), STRIP):
        grey[row : row + STRIP] = image[row : row + STRIP] @ weights
    return grey


def _at(image: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    return image if image.shape[:2] == size else pictures.resize(image, size)


def _write(name: str, photo_id: str, image: NDArray[Any], settings: Settings) -> str:
    """Write a picture; its path below `out`."""
    file = settings.decode.picture
    path = f"{name}/{photo_id}.{'png' if name == 'mask' else file.format}"
    pictures.write_picture(settings.out / path, image, bits=8 if name == "mask" else file.bits)
    return path


def _write_thumbnail(photo: Photo, path: Path) -> bool:
    """A small picture of a photo that cannot be used, if any of its files holds one."""
    preview = raw.preview(photo.raw) if photo.raw.is_file() else None
    found = [p for p in (photo.rendered, *photo.experts.values()) if p is not None and p.is_file()]
    image: Image.Image | None = None
    if preview is not None:
        image = Image.open(io.BytesIO(preview)).convert("RGB")
    elif (shown := next((p for p in map(_readable, found) if p is not None), None)) is not None:
        image = Image.fromarray(pictures.to_uint(shown, 8))
    if image is None:
        return False
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    with whole(path) as temporary:
        image.save(temporary, quality=85)
    return True


def _readable(path: Path) -> pictures.Picture | None:
    try:
        return pictures.read_srgb(path)
    except PhotoError:
        return None
