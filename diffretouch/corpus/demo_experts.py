"""Simulated experts: what a retoucher does to a photo in an editor, from scene light to a finished sRGB picture.

An expert sees the photo itself (level, flatness, colour, sky, face), reacts to it, has a taste, is not the same every
day, and edits parts of the picture. Amounts are in stops, mired (+ is warmer) and shares.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np

from diffretouch.corpus.demo_paint import axes, smooth
from diffretouch.corpus.demo_scenes import Scene
from diffretouch.corpus.demo_tables import (
    SCENE_TOP,
    Draws,
    Floats,
    look_up,
    luminance,
    picture_from_scene,
    stops_from_scene,
)

LEVEL = -3.6  # mean log2 scene light that experts take for a well-exposed photo
SPREAD = 1.9  # standard deviation of log2 scene light that they take for full contrast


@dataclass(frozen=True)
class Taste:
    """An expert: base taste, reactions, local habits, and how far one day differs from another (sd)."""

    stops: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    warmth: float = 0.0
    """mired"""
    tint: float = 0.0
    """Share of green; - is magenta."""
    fill: float = 0.4
    """Share of a photo's distance from LEVEL that is made good."""
    flatness: float = 0.15
    """Contrast added for each stop that the photo's spread is under SPREAD."""
    neutral: float = 0.5
    """Share of the light's own cast that is taken out."""
    calm: float = 0.0
    """Saturation taken from a photo that is colourful already."""
    shadows: float = 0.0
    """Height by which the dark quarter of the tones is lifted (- is crushed)."""
    sky: float = 0.0
    """Stops by which the top of a sky is darkened."""
    subject: float = 0.0
    """Stops by which the subject is lifted."""
    vignette: float = 0.0
    """Stops lost in the corners."""


@dataclass(frozen=True)
class Day:
    """How this photo's version departs from the expert's habit, in the units of Taste."""

    stops: float
    contrast: float
    saturation: float
    warmth: float
    shadows: float
    subject: float


FARTHEST = Day(stops=0.88, contrast=0.48, saturation=0.36, warmth=27.0, shadows=0.29, subject=0.42)
"""The farthest departure among five experts; three spread less, or they would stand farther apart than real ones."""


FIVEK = {
    "a": Taste(stops=-0.22, contrast=-0.08, saturation=-0.12, warmth=-14, fill=0.6, shadows=0.10, sky=0.2, subject=0.1),
    "b": Taste(stops=-0.13, contrast=-0.12, saturation=0.0, warmth=-8, fill=0.4, shadows=0.05, subject=0.3),
    "c": Taste(stops=-0.22, contrast=0.26, saturation=0.20, warmth=-8, sky=0.6, vignette=0.2, calm=0.3),
    "d": Taste(stops=-0.26, contrast=0.06, saturation=-0.04, warmth=4, fill=0.3, sky=0.3, vignette=0.5),
    "e": Taste(stops=-0.25, saturation=0.16, warmth=26, tint=-0.02, fill=0.5, subject=0.35, vignette=0.3, neutral=0.2),
}
PPR10K = {
    "a": Taste(stops=-0.38, contrast=-0.12, saturation=0.08, warmth=-10, fill=0.5, subject=0.35, shadows=0.1),
    "b": Taste(stops=-0.40, contrast=0.02, saturation=0.04, warmth=8, fill=0.3, subject=0.2, vignette=0.4),
    "c": Taste(stops=-0.42, contrast=0.16, saturation=-0.18, warmth=0, tint=-0.01, subject=0.2, vignette=0.1, sky=0.3),
}


@dataclass(frozen=True)
class Look:
    """What an expert sees of a photo at first glance."""

    level: float
    """Mean log2 scene light."""
    spread: float
    """Its standard deviation, stops."""
    colour: float
    """Mean chroma of a plain development."""
    cast: tuple[float, float, float]
    """Mean colour over its mean luminance, a grey-world guess of the light."""


def days(count: int, turn: int, draws: Draws) -> list[Day]:
    """Photo number `turn`'s departures for `count` experts (a prime): evenly spread, by turns the other way round.

    Levels form a Latin square over photos, so no pair of experts is closer than another for long. Brighter versions are
    mostly the softer ones and warmer ones the less saturated, which keeps the measured attributes apart.
    """
    step = 1 + turn // count % (count - 1)
    levels = [(step * expert + turn) % count for expert in range(count)]
    warmths, shadows, subjects = _order(count, draws), _order(count, draws), _order(count, draws)
    columns = [levels, _apart(levels), _apart(warmths), warmths, shadows, subjects]
    share = 1.0 if count > 3 else 0.9
    amounts = [
        [share * most * (2 * place / (count - 1) - 1 + draws.uniform(-0.2, 0.2)) for place in column]
        for most, column in zip(astuple(FARTHEST), columns, strict=True)
    ]
    return [Day(*expert) for expert in zip(*amounts, strict=True)]


def _order(count: int, draws: Draws) -> list[int]:
    left = list(range(count))
    return [left.pop(draws.choice(len(left))) for _ in range(count)]


def _apart(levels: list[int]) -> list[int]:
    """Levels that correlate with `levels` at -.5."""
    return [(level + len(levels) // 2) % len(levels) for level in levels]


def look_at(scene: Scene) -> Look:
    """First glance at a scene; sums are over whole numbers, hence exact."""
    grey = luminance(scene.light)
    stops = look_up(stops_from_scene(), grey, SCENE_TOP).astype(np.int64)
    count = stops.size
    mean = int(stops.sum()) / count
    variance = int((stops * stops).sum()) / count - mean * mean
    plain = look_up(picture_from_scene(), scene.light, SCENE_TOP)
    chroma = _whole(plain.max(axis=2) - plain.min(axis=2)) / count
    means = [_whole(scene.light[..., channel]) / count for channel in range(3)]
    light = _whole(grey) / count
    cast = tuple(value / light for value in means)
    return Look(mean / 1000, max(variance, 0.0) ** 0.5 / 1000, chroma, (cast[0], cast[1], cast[2]))


def _whole(values: Floats) -> float:
    return int((values * np.float32(65535) + np.float32(0.5)).astype(np.int64).sum()) / 65535


def retouch(scene: Scene, look: Look, taste: Taste, day: Day, draws: Draws) -> Floats:
    """The expert's sRGB picture (H, W, 3) in [0, 1] of a scene."""
    fill = min(0.5, max(-0.5, taste.fill * (LEVEL - look.level)))
    stops = taste.stops + fill + day.stops
    contrast = taste.contrast + taste.flatness * (SPREAD - look.spread) + day.contrast
    saturation = max(-0.4, taste.saturation - taste.calm * (look.colour - 0.25) + day.saturation)
    warmth = taste.warmth + day.warmth
    shadows = taste.shadows + day.shadows
    local = _local_light(scene, taste, stops, taste.subject + day.subject, draws)
    light = scene.light * _white_balance(look, taste, warmth) * local[..., None]
    picture = look_up(_tone(contrast, shadows), light, SCENE_TOP)
    return _saturate(picture, scene, saturation)


def _white_balance(look: Look, taste: Taste, warmth: float) -> Floats:
    # near daylight ln(R/B) of a Planckian white falls by .0052 a mired
    red, green, blue = (1 - 0.25 * taste.neutral * (value - 1) for value in look.cast)
    gains = (red * (1 + 0.0026 * warmth), green * (1 + taste.tint), blue / (1 + 0.0026 * warmth))
    norm = 0.2126 * gains[0] + 0.7152 * gains[1] + 0.0722 * gains[2]
    return np.array([gain / norm for gain in gains], np.float32)


def _local_light(scene: Scene, taste: Taste, stops: float, subject: float, draws: Draws) -> Floats:
    """Exposure (H, W) as a factor: the whole, the sky's gradient, the subject, the corners."""
    y, x = axes(scene.subject.shape)
    light = np.full(scene.subject.shape, _factor(stops), np.float32)
    if scene.sky:
        darker = _factor(-taste.sky * draws.uniform(0.6, 1.4)) - 1
        light *= 1 + np.float32(darker) * (1 - smooth(0.0, 0.55, y + 0 * x))
    # a strong lift against a sky would show as a halo
    lift = subject * (0.4 if scene.sky else 1.2 if scene.face else 1.0)
    light *= 1 + np.float32(_factor(lift) - 1) * scene.feathered
    corner = np.float32(_factor(-taste.vignette * draws.uniform(0.6, 1.4)) - 1)
    radius = ((y - np.float32(0.5)) ** 2 + x * x) * np.float32(2.2)
    return light * (1 + corner * smooth(0.15, 1.2, radius))


def _factor(stops: float) -> float:
    return round(2.0**stops, 6)


def _tone(contrast: float, shadows: float) -> Floats:
    """A table from scene light over [0, SCENE_TOP] to picture values: maker's curve, shadows, S-curve, shoulder."""
    y = picture_from_scene()
    low = np.minimum(y, 1)
    rest = (1 - low) * (1 - low)
    bent = y + np.float32(2.5 * shadows) * low * rest * rest
    low = np.minimum(bent, 1)
    bent = bent + np.float32(1.9 * contrast) * (low - np.float32(0.45)) * low * (1 - low)
    over = np.maximum(bent - np.float32(0.85), 0) / np.float32(0.15)
    shoulder = np.float32(0.85) + np.float32(0.15) * (1 - 1 / (1 + over + over * over))
    return np.where(bent > np.float32(0.85), shoulder, np.maximum(bent, 0)).astype(np.float32)


def _saturate(picture: Floats, scene: Scene, saturation: float) -> Floats:
    """Saturation about luminance; what is saturated already, and skin, takes less of an increase."""
    grey = luminance(picture)[..., None]
    chroma = (picture.max(axis=2) - picture.min(axis=2))[..., None]
    amount = np.float32(saturation) * np.ones_like(grey)
    if saturation > 0:
        amount = amount * (1 - np.float32(0.6) * chroma)
        if scene.face:
            amount = amount * (1 - np.float32(0.5) * scene.subject[..., None])
    return np.clip(grey + (1 + amount) * (picture - grey), 0, 1)
