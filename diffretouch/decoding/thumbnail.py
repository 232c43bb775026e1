"""A small picture of a photo that cannot be used, for the report."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageOps

from diffretouch.corpus.layout import Photo
from diffretouch.errors import PhotoError
from diffretouch.files import pictures, raw
from diffretouch.files.atomic import whole
from diffretouch.files.formats import UNREADABLE

LONG_EDGE = 320


def write_thumbnail(photo: Photo, path: Path) -> bool:
    """A small picture of a photo that cannot be used, if any of its files holds one."""
    image = _preview(photo.raw) if photo.raw.is_file() else None
    if image is None:
        found = [p for p in (photo.rendered, *photo.experts.values()) if p is not None and p.is_file()]
        shown = next((p for p in map(_readable, found) if p is not None), None)
        if shown is None:
            return False
        image = Image.fromarray(pictures.to_uint(shown, 8))
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


def _readable(path: Path) -> pictures.Picture | None:
    try:
        return pictures.read_srgb(path)
    except PhotoError:
        return None
