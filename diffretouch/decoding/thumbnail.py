"""A small picture of a photo that cannot be used, for the report."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from diffretouch.corpus.layout import Photo
from diffretouch.errors import PhotoError
from diffretouch.files import pictures, raw
from diffretouch.files.atomic import whole

LONG_EDGE = 320


def write_thumbnail(photo: Photo, path: Path) -> bool:
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
    image.thumbnail((LONG_EDGE, LONG_EDGE))
    with whole(path) as temporary:
        image.save(temporary, quality=85)
    return True


def _readable(path: Path) -> pictures.Picture | None:
    try:
        return pictures.read_srgb(path)
    except PhotoError:
        return None
