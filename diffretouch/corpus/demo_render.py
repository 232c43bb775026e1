"""Rendered scenes for training: simple pictures with the tones of photographs, painted in sRGB values.

Each painter returns the picture (H, W, 3) in [0, 1] and a subject mask (H, W) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from diffretouch.corpus.demo_paint import Colour, axes, ball, clouds, gradient, over, smooth, toned
from diffretouch.corpus.demo_tables import Draws, Floats

Painted = tuple[Floats, Floats]
SKIN: tuple[Colour, ...] = ((0.86, 0.68, 0.58), (0.76, 0.55, 0.43), (0.55, 0.38, 0.29), (0.90, 0.74, 0.66))
HAIR: tuple[Colour, ...] = ((0.16, 0.11, 0.09), (0.34, 0.22, 0.13), (0.10, 0.09, 0.10), (0.62, 0.48, 0.30))
CLOTH: tuple[Colour, ...] = ((0.22, 0.32, 0.52), (0.58, 0.20, 0.22), (0.82, 0.80, 0.76), (0.20, 0.36, 0.28))


def landscape(draws: Draws, size: tuple[int, int]) -> Painted:
    """Sky with clouds, hills in haze, a meadow."""
    y, x = axes(size)
    horizon = draws.uniform(0.42, 0.58)
    top = (draws.uniform(0.25, 0.42), draws.uniform(0.45, 0.60), draws.uniform(0.74, 0.86))
    image = gradient(np.clip(y / np.float32(horizon), 0, 1), top, (0.82, 0.87, 0.90), size[1])
    cover = draws.uniform(0.42, 0.56)
    image = over(image, smooth(cover, cover + 0.22, clouds(draws, size, 3)) * np.float32(0.85), (0.95, 0.95, 0.94))
    green = (draws.uniform(0.25, 0.42), draws.uniform(0.36, 0.46), draws.uniform(0.14, 0.22))
    for layer in range(4):
        near = (layer + 1) / 4
        ridge = clouds(draws, size, 2, 4)[size[0] // 2][None, :]
        edge = np.float32(horizon + 0.09 * layer - 0.02) + (np.float32(0.5) - ridge) * np.float32(0.28 - 0.03 * layer)
        colour = tuple(h + (g - h) * near for g, h in zip(green, (0.62, 0.70, 0.78), strict=True))
        grain = (clouds(draws, size, 8, 5) - np.float32(0.5)) * np.float32(0.55 * near)
        ground = np.asarray(colour, np.float32) * (1 + grain[..., None])
        image = over(image, smooth(-0.004, 0.004, y - edge), ground)
    return image, smooth(horizon, 1.0, y + 0 * x)


def sunset(draws: Draws, size: tuple[int, int]) -> Painted:
    """A low sun over the sea."""
    y, x = axes(size)
    horizon = draws.uniform(0.55, 0.65)
    image = gradient(np.clip(y / np.float32(horizon), 0, 1), (0.30, 0.34, 0.52), (0.93, 0.64, 0.40), size[1])
    streaks = smooth(0.48, 0.70, clouds(draws, size, 3)) * np.float32(0.6)
    image = over(image, streaks, (0.62, 0.42, 0.44))
    sun = draws.uniform(-0.35, 0.35)
    distance = np.sqrt((x - np.float32(sun)) ** 2 + (y - np.float32(horizon - 0.10)) ** 2)
    image = over(image, 1 - smooth(0.03, 0.32, distance), (1.0, 0.88, 0.62))
    waves = clouds(draws, size, 14, 4)
    sea = np.asarray((0.24, 0.24, 0.32), np.float32) * (np.float32(0.6) + waves[..., None] * np.float32(0.8))
    glint = (1 - smooth(0.0, 0.25, np.abs(x - np.float32(sun)))) * smooth(0.5, 0.7, waves)
    water = smooth(-0.002, 0.002, y - np.float32(horizon))
    image = over(over(image, water, sea), water * glint * np.float32(0.8), (0.98, 0.74, 0.46))
    return image, 1 - smooth(0.05, 0.5, distance)


def forest(draws: Draws, size: tuple[int, int]) -> Painted:
    """Trunks in mist."""
    y, x = axes(size)
    image = gradient(y, (0.66, 0.71, 0.66), (0.30, 0.34, 0.22), size[1])
    image *= np.float32(0.75) + clouds(draws, size, 6, 6)[..., None] * np.float32(0.5)
    for trunk in range(14):
        near = (trunk + 3) / 17
        centre, half = draws.uniform(-0.8, 0.8), 0.012 + 0.035 * near * draws.uniform(0.5, 1.2)
        across = (x - np.float32(centre)) / np.float32(half) + (clouds(draws, size, 3, 2) - np.float32(0.5))
        bark = (
            np.asarray((0.34, 0.27, 0.20), np.float32)
            * (np.float32(1.25) - np.float32(0.6) * smooth(-1, 1, across))[..., None]
        )
        image = over(image, (1 - smooth(0.85, 1.0, np.abs(across))) * np.float32(0.25 + 0.7 * near), bark)
    leaves = smooth(0.52, 0.62, clouds(draws, size, 9, 5)) * (1 - smooth(0.2, 0.7, y))
    return over(image, leaves * np.float32(0.8), (0.34, 0.44, 0.16)), smooth(0.4, 0.9, y + 0 * x)


def street(draws: Draws, size: tuple[int, int]) -> Painted:
    """Houses with lit windows after dusk."""
    y, x = axes(size)
    image = gradient(y, (0.10, 0.14, 0.28), (0.36, 0.32, 0.40), size[1])
    for house in range(9):
        left = -0.85 + 0.19 * house + draws.uniform(-0.03, 0.03)
        roof = draws.uniform(0.18, 0.5)
        tone = draws.uniform(0.14, 0.26)
        wall = (
            smooth(-0.002, 0.002, y - np.float32(roof))
            * smooth(0, 0.004, x - np.float32(left))
            * (1 - smooth(0.17, 0.174, x - np.float32(left)))
        )
        image = over(image, wall, (tone * 1.1, tone, tone * 0.95))
        for row in range(6):
            for column in range(3):
                if draws.uniform(0, 1) < 0.5:
                    u, v = x - np.float32(left + 0.03 + 0.05 * column), y - np.float32(roof + 0.05 + 0.09 * row)
                    pane = (
                        smooth(0, 0.004, u)
                        * (1 - smooth(0.024, 0.028, u))
                        * smooth(0, 0.004, v)
                        * (1 - smooth(0.045, 0.05, v))
                    )
                    image = over(image, pane * wall, (0.96, 0.80, draws.uniform(0.42, 0.62)))
    road = smooth(0.80, 0.83, y + 0 * x)
    wet = np.asarray((0.30, 0.25, 0.24), np.float32) * (np.float32(0.5) + clouds(draws, size, 7, 5)[..., None])
    image = over(image, road, wet)
    for _ in range(3):
        lamp, post = draws.uniform(-0.7, 0.7), draws.uniform(0.5, 0.65)
        distance = np.sqrt((x - np.float32(lamp)) ** 2 + (y - np.float32(post)) ** 2)
        glow = (1 - smooth(0.0, 0.35, distance)) * np.float32(0.55)
        image = over(over(image, glow, (0.95, 0.72, 0.44)), 1 - smooth(0.012, 0.02, distance), (1.0, 0.96, 0.86))
    return image, road


def table(draws: Draws, size: tuple[int, int]) -> Painted:
    """Coloured fruit and a bowl on a wooden table before a lamp-lit wall."""
    y, x = axes(size)
    wall = (draws.uniform(0.52, 0.74), draws.uniform(0.48, 0.62), draws.uniform(0.38, 0.56))
    image = gradient(y, wall, toned(wall, 0.7), size[1])
    lamp = draws.uniform(-0.5, 0.5)
    distance = np.sqrt((x - np.float32(lamp)) ** 2 + (y - np.float32(0.05)) ** 2)
    image = over(image, (1 - smooth(0.0, 0.8, distance)) * np.float32(0.75), (1.0, 0.93, 0.76))
    edge = draws.uniform(0.5, 0.62)
    grain = clouds(draws, (size[0], 24), 5, 4).repeat(-(-size[1] // 24), axis=1)[:, : size[1]] + clouds(
        draws, size, 30, 3
    ) * np.float32(0.6)
    wood = np.asarray((0.50, 0.32, 0.19), np.float32) * (np.float32(0.55) + grain[..., None] * np.float32(0.6))
    image = over(image, smooth(-0.003, 0.003, y - np.float32(edge)), wood)
    subject = np.zeros(size, np.float32)
    colours: tuple[Colour, ...] = (
        (0.80, 0.20, 0.15),
        (0.90, 0.60, 0.15),
        (0.45, 0.58, 0.20),
        (0.86, 0.84, 0.80),
        (0.28, 0.22, 0.42),
    )
    for fruit in range(6):
        centre, radius = (draws.uniform(-0.6, 0.6), edge + draws.uniform(0.02, 0.2)), draws.uniform(0.07, 0.16)
        shadow, _ = ball(size, (centre[0] + radius * 0.5, centre[1] + radius * 0.85), (radius * 1.2, radius * 0.35))
        image *= 1 - np.float32(0.5) * shadow[..., None]
        mask, shade = ball(size, centre, (radius, radius))
        skin = (
            np.asarray(colours[fruit % 5], np.float32)
            * (shade * (np.float32(0.85) + np.float32(0.3) * clouds(draws, size, 12, 3)))[..., None]
        )
        image = over(image, mask, skin)
        spark, _ = ball(size, (centre[0] - radius * 0.35, centre[1] - radius * 0.4), (radius * 0.16, radius * 0.12))
        image = over(image, spark * np.float32(0.7), (1.0, 0.98, 0.94))
        subject = np.maximum(subject, mask)
    return image, subject


def portrait(draws: Draws, size: tuple[int, int]) -> Painted:
    """A head and shoulders before a blurred background; the mask is the person."""
    y, _ = axes(size)
    # before any draw whose number depends on the format, so that a scene keeps its person
    skin, hair, cloth = SKIN[draws.choice(4)], HAIR[draws.choice(4)], CLOTH[draws.choice(4)]
    cx, cy, r = draws.uniform(-0.12, 0.12), draws.uniform(0.38, 0.44), draws.uniform(0.15, 0.2)
    backdrop = ((0.42, 0.48, 0.40), (0.58, 0.56, 0.54), (0.30, 0.36, 0.46), (0.66, 0.58, 0.48))[draws.choice(4)]
    image = gradient(y, toned(backdrop, 1.25), toned(backdrop, 0.7), size[1])
    image *= np.float32(0.7) + np.float32(0.6) * clouds(draws, size, 3, 2)[..., None]
    for _ in range(7):
        light, _shade = ball(
            size, (draws.uniform(-0.8, 0.8), draws.uniform(0.0, 0.7)), (draws.uniform(0.03, 0.09),) * 2
        )
        image = over(image, light * np.float32(0.35), (0.95, draws.uniform(0.75, 0.95), draws.uniform(0.5, 0.9)))
    person = np.zeros(size, np.float32)

    def add(centre: tuple[float, float], radii: tuple[float, float], colour: Colour, rough: float) -> None:
        nonlocal image, person
        mask, shade = ball(size, centre, radii)
        texture = np.float32(1 - rough / 2) + np.float32(rough) * clouds(draws, size, 10, 5)
        image = over(
            image, mask, np.asarray(colour, np.float32) * np.clip(shade * texture + np.float32(0.1), 0, 1.12)[..., None]
        )
        person = np.maximum(person, mask)

    add((cx, cy - 0.02 + r * 0.25), (r * 1.12, r * 1.5), hair, 0.7)
    add((cx, 1.12), (r * 2.4, 1.12 - cy - r * 1.45), cloth, 0.4)
    add((cx, cy + r * 1.35), (r * 0.45, r * 0.7), toned(skin, 0.85), 0.08)
    add((cx, cy + r * 0.2), (r * 0.84, r * 1.14), skin, 0.10)
    add((cx, cy - r * 0.85), (r * 0.9, r * 0.52), hair, 0.7)
    add((cx, cy + r * 0.36), (r * 0.13, r * 0.24), toned(skin, 1.05), 0.05)
    for side in (-1, 1):
        add((cx + side * r * 0.34, cy - r * 0.12), (r * 0.17, r * 0.025), hair, 0.2)
        add((cx + side * r * 0.34, cy + r * 0.06), (r * 0.14, r * 0.065), (0.85, 0.83, 0.80), 0.02)
        add((cx + side * r * 0.34, cy + r * 0.06), (r * 0.06, r * 0.06), (0.22, 0.16, 0.12), 0.02)
    add((cx, cy + r * 0.76), (r * 0.27, r * 0.07), (skin[0] * 0.86, skin[1] * 0.62, skin[2] * 0.66), 0.05)
    return image, person


PAINTERS: dict[str, Callable[[Draws, tuple[int, int]], Painted]] = {
    "landscape": landscape,
    "sunset": sunset,
    "forest": forest,
    "street": street,
    "table": table,
    "portrait": portrait,
}
