"""Pictures for the page: reduced, as data URIs, each with its colour histogram as an inline SVG."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from markupsafe import Markup

from diffretouch.files.pictures import Picture, read_srgb, reduce_to, to_uint

BINS, WIDTH, HEIGHT = 48, 96, 40
CHANNELS = ("#ff5a4a", "#57d36b", "#5b8cff")


@dataclass(frozen=True)
class Frame:
    """One picture on the page."""

    src: str
    """data:image/jpeg;base64,..."""
    width: int
    height: int
    histogram: Markup
    name: str
    """What it is, in a few words."""
    c: tuple[float, ...] = ()
    """The condition it was made with, in the order of the attributes; empty for inputs and experts."""
    notes: Mapping[str, float] = field(default_factory=dict)
    """Numbers to show with it."""


def frame(path: Path, name: str, *, long_edge: int, quality: int, **more: Any) -> Frame:
    """Read, reduce and encode one picture."""
    image = reduce_to(read_srgb(path), long_edge=long_edge)
    # halved chroma and fitted Huffman tables: a third fewer bytes, invisible at this size
    packed = imagecodecs.jpeg8_encode(to_uint(image, 8), level=quality, subsampling="420", optimize=True)
    return Frame(data_uri(bytes(packed), "image/jpeg"), image.shape[1], image.shape[0], histogram(image), name, **more)


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as a URI that needs no file and no network."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def histogram(image: Picture) -> Markup:
    """An SVG of the three channels' distributions, sRGB values from left (0) to right (1), square-root heights."""
    counts = np.stack([np.histogram(image[..., k], bins=BINS, range=(0, 1))[0] for k in range(3)])
    # the two end bins hold what is clipped, and would flatten all the rest
    top = max(1.0, float(np.sqrt(counts[:, 1:-1]).max()))
    heights = np.minimum(np.sqrt(counts) / top, 1.0) * HEIGHT
    step = WIDTH / (BINS - 1)
    paths = []
    for line, colour in zip(heights, CHANNELS, strict=True):
        points = " ".join(f"L{k * step:.0f} {HEIGHT - y:.0f}" for k, y in enumerate(line))
        paths.append(f'<path fill="{colour}" d="M0 {HEIGHT} {points} L{WIDTH} {HEIGHT}Z"/>')
    return Markup(
        f'<svg class="hist" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true">'
        f"{''.join(paths)}</svg>"
    )
