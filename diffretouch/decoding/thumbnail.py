"""A small picture of a photo that cannot be used, for the report."""

from __future__ import annotations

import io
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from PIL import Image, ImageOps

from diffretouch.corpus.layout import Photo
from diffretouch.errors import PhotoError
from diffretouch.files import pictures, raw
from diffretouch.files.atomic import whole
from diffretouch.files.formats import UNREADABLE

LONG_EDGE = 320


def write_thumbnail(photo: Photo, path: Path, guilty: Path | None = None) -> bool:
    """A small picture of a photo that cannot be used, if any of its files holds one: the `guilty` picture first."""
    image = _first_readable([guilty])
    if image is None and photo.raw.is_file():
        image = _preview(photo.raw)
    if image is None:
        image = _first_readable([photo.rendered, *photo.experts.values()])
    if image is None:
        return False
    image.thumbnail((LONG_EDGE, LONG_EDGE))
    with whole(path) as temporary:
        image.save(temporary, quality=85)
    return True


def _preview(path: Path) -> Image.Image | None:
    """The RAW's own small picture, upright; None where there is none, or where it is damaged like the rest."""
    preview = raw.preview(path)
    if preview is None:
        return None
    try:
        image = Image.open(io.BytesIO(preview)) if isinstance(preview, bytes) else Image.fromarray(preview)
        return ImageOps.exif_transpose(image).convert("RGB")
    except UNREADABLE:
        return None


def _first_readable(paths: Iterable[Path | None]) -> Image.Image | None:
    for path in paths:
        if path is not None and path.is_file():
            with suppress(PhotoError):
                return Image.fromarray(pictures.to_uint(pictures.read_srgb(path), 8))
    return None
