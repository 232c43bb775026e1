"""One photo: its RAW (or rendered input) and its experts' pictures, checked, brought to one size, written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffretouch.config import Corpus, Decode
from diffretouch.corpus.layout import Photo
from diffretouch.decoding.sizes import Size, common_size, target_size
from diffretouch.decoding.thumbnail import write_thumbnail
from diffretouch.errors import PhotoError
from diffretouch.files import pictures, raw
from diffretouch.files.exif import Exif, read_exif
from diffretouch.files.raw_checks import check_filled
from diffretouch.files.srgb import srgb_encode
from diffretouch.registration import check_registration

Picture16 = NDArray[np.uint16]
STRIP = 16
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
            raise PhotoError(photo.problem, "several")
        return _decode(photo, settings, reserve)
    except PhotoError as error:
        thumbnail = settings.out / "quarantine" / f"{photo.photo_id}.jpg"
        guilty = photo.experts.get(error.source.removeprefix("expert_"))
        files = (str(thumbnail.relative_to(settings.out)),) if write_thumbnail(photo, thumbnail, guilty) else ()
        return Decoded(_camera_facts(photo, settings) | quarantined(str(error), error.kind), files)


def _camera_facts(photo: Photo, settings: Settings) -> dict[str, Any]:
    """What the input's file says of the camera, so that people see which camera's photos cannot be used."""
    path = photo.rendered if settings.decode.input == "rendered" else photo.raw
    try:
        exif = read_exif(path) if path is not None else Exif()
    except PhotoError:
        exif = Exif()
    return {"camera": exif.camera, "lens": exif.lens, "iso": exif.iso}


def quarantined(reason: str, kind: str) -> dict[str, Any]:
    """The row of a photo that cannot be used."""
    return {"status": "quarantined", "kind": kind, "reason": reason}


def _decode(photo: Photo, settings: Settings, reserve: Callable[[int], None]) -> Decoded:
    sources = {f"expert_{x}": path for x, path in photo.experts.items()}
    if photo.mask is not None:
        sources["mask"] = photo.mask
    sizes = {name: pictures.read_size(path) for name, path in sources.items()}
    source, row = _open_input(photo, settings, reserve, sizes)
    size = common_size(source.size, sizes, settings.decode.input, settings.corpus.short_edge)
    untagged = [] if source.tagged else ["input"]
    # one picture at a time; what was written of a photo that then proves unusable, the stage sweeps away
    image = source.at(size)
    check_filled(image, "input")
    row["input"] = _write("input", photo.photo_id, image, settings)
    limit = settings.decode.registration
    edges = None if limit is None else _grey(image)
    del source, image  # each as large as LibRaw's output
    for name, path in sources.items():
        if name == "mask":
            row[name] = _write(name, photo.photo_id, _at(pictures.read_mask(path), size), settings)
            continue
        image, tagged = _read_expert(path, size, settings.corpus.untagged)
        untagged += [] if tagged else [name]
        check_filled(image, name)
        if edges is not None and limit is not None:
            fault = check_registration(edges, _grey(image), limit)
            if fault is not None:
                raise PhotoError(f"{name} {fault}", "orientation" if fault.startswith("is ") else "registration", name)
        row[name] = _write(name, photo.photo_id, image, settings)
        del image
    files = tuple(row[name] for name in ("input", *sources))
    height, width = size
    return Decoded({"status": "ok", "height": height, "width": width, **row, "untagged": untagged}, files)


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
        height, width = target_size(size, smallest or size, settings.corpus.short_edge)
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


def _developed_at(developed: raw.Developed, size: Size, stops: float) -> Picture16:
    """LibRaw's linear light at `size`, encoded as sRGB, times two to the power of `stops`."""
    light, box = developed.rgb16_linear, developed.box
    left, top, right, bottom = (int(edge) for edge in box)
    if (bottom - top, right - left) == size and all(float(edge).is_integer() for edge in box):
        image = np.empty((*size, 3), np.uint16)
        curve = _curve(stops)
        for row in range(0, size[0], STRIP):
            strip = light[top + row : min(top + row + STRIP, bottom), left:right]
            # "clip" spares numpy a look at every index before the first
            image[row : row + STRIP] = curve.take(strip, mode="clip")
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
    return pictures.to_uint(np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055), 16)


def _encode(rgb_linear: NDArray[np.float32]) -> Picture16:
    """Linear light, which is overwritten, to 16-bit sRGB; what lies outside is clipped."""
    return pictures.to_uint(srgb_encode(rgb_linear, out=rgb_linear), 16)


def _read_expert(path: Path, size: Size, untagged: pictures.Space) -> tuple[Picture16, bool]:
    """An expert's picture in 16-bit sRGB at `size`, and whether it carries a profile."""
    if pictures.read_size(path) == size:
        return pictures.read_srgb16(path, untagged)
    opened = pictures.read_linear(path, untagged)
    return _encode(pictures.resize(opened.rgb_linear, size)), opened.tagged


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
