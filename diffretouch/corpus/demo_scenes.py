"""Scenes of the demo corpora: photographs shipped inside installed wheels, and rendered scenes, as scene light."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from diffretouch.corpus.demo_paint import axes
from diffretouch.corpus.demo_render import PAINTERS
from diffretouch.corpus.demo_tables import SCENE_TOP, Draws, Floats, look_up, luminance, scene_from_srgb
from diffretouch.errors import UserError

Box = tuple[float, float, float, float]
LANDSCAPE, PORTRAIT = (360, 540), (540, 360)


@dataclass(frozen=True)
class Photograph:
    """A photograph of an installed package; shapes are in its own pixels."""

    package: str
    path: str
    licence: str
    subject: tuple[tuple[tuple[int, int], ...], ...]
    """Polygons of the subject; two points stand for an ellipse's bounding box."""
    sky: bool = False
    face: bool = False


PHOTOGRAPHS = {
    "pagoda": Photograph(
        "sklearn",
        "datasets/images/china.jpg",
        "CC BY 2.0, Daniel Buechele",
        (
            (
                (82, 200),
                (60, 130),
                (135, 75),
                (205, 30),
                (285, 80),
                (350, 130),
                (330, 200),
                (345, 300),
                (335, 400),
                (90, 400),
            ),
        ),
        sky=True,
    ),
    "flower": Photograph(
        "sklearn",
        "datasets/images/flower.jpg",
        "CC BY 2.0, vultilion",
        (((168, 85), (447, 358)), ((290, 368), (465, 470))),
    ),
    "coffee": Photograph(
        "skimage", "data/coffee.png", "CC0, Rachel Michetti", (((75, 70), (485, 395)), ((172, 12), (425, 225)))
    ),
    "astronaut": Photograph(
        "skimage",
        "data/astronaut.png",
        "public domain, NASA",
        (
            ((150, 12), (302, 190)),
            ((125, 140), (315, 300)),
            ((30, 512), (28, 290), (75, 220), (150, 190), (290, 215), (345, 240), (365, 340), (300, 400), (280, 512)),
        ),
        face=True,
    ),
    "garage": Photograph(
        "skimage",
        "data/motorcycle_left.png",
        "Middlebury stereo 2014, free for research",
        (
            ((110, 235), (290, 425)),
            ((505, 255), (680, 455)),
            (
                (90, 195),
                (190, 150),
                (330, 190),
                (470, 140),
                (480, 60),
                (580, 80),
                (580, 200),
                (640, 300),
                (560, 330),
                (480, 400),
                (330, 420),
                (200, 400),
            ),
        ),
    ),
    "rocket": Photograph(
        "skimage", "data/rocket.jpg", "CC0, SpaceX", (((300, 125), (345, 125), (350, 410), (295, 410)),), sky=True
    ),
    "cat": Photograph(
        "skimage",
        "data/chelsea.png",
        "CC0, Stefan van der Walt",
        (
            ((40, 15), (370, 290)),
            ((0, 300), (0, 90), (40, 0), (380, 0), (360, 180), (330, 300)),
        ),
    ),
    "deep_field": Photograph(
        "skimage", "data/hubble_deep_field.jpg", "public domain, NASA", (((300, 300), (700, 600)),)
    ),
    "officer": Photograph(
        "matplotlib",
        "mpl-data/sample_data/grace_hopper.jpg",
        "public domain, US Navy",
        (
            ((148, 20), (372, 170)),
            ((155, 60), (362, 330)),
            ((10, 600), (20, 420), (150, 330), (210, 290), (320, 290), (400, 340), (495, 420), (510, 600)),
        ),
        face=True,
    ),
}


@dataclass(frozen=True)
class View:
    """How a photo sees its scene and in what light."""

    scene: str
    """A key of PHOTOGRAPHS, or the name of a rendered scene."""
    painter: str | None = None
    """The painter of a rendered scene; None for a photograph."""
    upright: bool = False
    """True for 360 x 540 (portrait format)."""
    box: Box | None = None
    """Left, top and height of the crop as shares of the source's height, and 1 for mirrored; None is the centre."""


@dataclass(frozen=True)
class Scene:
    """Scene light (H, W, 3), linear sRGB primaries, white 1, and what is known about it."""

    light: Floats
    subject: Floats
    """Mask (H, W) in [0, 1]."""
    feathered: Floats
    """The same with the soft edge of a local edit."""
    sky: bool
    face: bool


def build(view: View, layout_seed: int, draws: Draws) -> Scene:
    """The scene of `view`: `layout_seed` fixes a rendered scene's layout, `draws` its light on this photo."""
    size = PORTRAIT if view.upright else LANDSCAPE
    if view.painter is None:
        source = PHOTOGRAPHS[view.scene]
        picture, subject = _photograph(view, size, draws)
        sky, face = source.sky, source.face
    else:
        picture, subject = PAINTERS[view.painter](Draws(layout_seed), size)
        picture = picture + draws.noise(picture.shape[:2])[..., None] * np.float32(0.006)
        sky, face = view.painter in ("landscape", "sunset"), view.painter == "portrait"
    return Scene(_relight(look_up(scene_from_srgb(), picture), draws), subject, _feather(subject), sky, face)


def _feather(mask: Floats) -> Floats:
    soft = Image.fromarray((mask * np.float32(255) + np.float32(0.5)).astype(np.uint8))
    for _ in range(2):
        soft = soft.filter(ImageFilter.BoxBlur(18))
    return np.asarray(soft, np.float32) / np.float32(255)


def _relight(light: Floats, draws: Draws) -> Floats:
    """Other light on the same scene: level, colour, direction, haze, depth of colour."""
    y, x = axes(light.shape[:2])
    level = 2 ** draws.uniform(-0.35, 0.25)
    warmth, tint = draws.uniform(-0.07, 0.07), draws.uniform(-0.015, 0.015)
    colour = np.array((1 + warmth, 1 + tint, 1 - warmth), np.float32) * np.float32(round(level, 6))
    slope = (
        1 + np.float32(draws.uniform(-0.25, 0.25)) * x + np.float32(draws.uniform(-0.2, 0.2)) * (y - np.float32(0.5))
    )
    haze = np.float32(max(0.0, draws.uniform(-0.04, 0.04)))
    depth = np.float32(draws.uniform(0.85, 1.1))
    grey = luminance(light)[..., None]
    light = (grey + depth * (light - grey)) * (1 - haze) + haze * np.float32(0.6)
    return np.clip(light * slope[..., None] * colour, 0, np.float32(SCENE_TOP))


def _photograph(view: View, size: tuple[int, int], draws: Draws) -> tuple[Floats, Floats]:
    picture, mask = _source(view.scene)
    height = picture.height
    if view.box is None:
        tall = min(float(height), picture.width * size[0] / size[1])
        left, top, mirrored = (picture.width - tall * size[1] / size[0]) / 2, (height - tall) / 2, 0.0
    else:
        left, top, tall = (value * height for value in view.box[:3])
        mirrored = view.box[3]
    box = (left, top, left + tall * size[1] / size[0], top + tall)
    if box[2] > picture.width + 1 or box[3] > height + 1:
        raise ValueError(f"crop {view.box} of {view.scene} leaves its {picture.width} x {height} pixels")
    box = (box[0], box[1], min(box[2], picture.width), min(box[3], height))
    width_height = (size[1], size[0])
    values: Floats = np.asarray(picture.resize(width_height, Image.Resampling.BICUBIC, box=box), np.float32)
    subject = np.asarray(mask.resize(width_height, Image.Resampling.BILINEAR, box=box), np.float32) / np.float32(255)
    # half a step of dither keeps 8-bit sources from showing their steps after relighting
    values = np.asarray((values + draws.noise(values.shape) * np.float32(0.35)) / np.float32(255), np.float32)
    if mirrored:
        values, subject = values[:, ::-1], subject[:, ::-1]
    return np.ascontiguousarray(np.clip(values, 0, 1)), np.ascontiguousarray(subject)


@cache
def _source(name: str) -> tuple[Image.Image, Image.Image]:
    source = PHOTOGRAPHS[name]
    spec = find_spec(source.package)
    if spec is None or spec.origin is None:
        raise UserError(f"the demo needs the photographs of the package {source.package}: pip install it")
    with Image.open(Path(spec.origin).parent / source.path) as opened:
        picture = opened.convert("RGB")
    mask = Image.new("L", picture.size)
    drawing = ImageDraw.Draw(mask)
    for shape in source.subject:
        drawing.ellipse(shape, fill=255) if len(shape) == 2 else drawing.polygon(shape, fill=255)
    return picture, mask.filter(ImageFilter.BoxBlur(picture.height / 90))
