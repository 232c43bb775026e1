"""Brushes of the rendered scenes: soft edges, gradients, value noise, shaded ellipses; sRGB values in [0, 1]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffretouch.corpus.demo_tables import Draws, Floats

Colour = tuple[float, float, float]


def toned(colour: Colour, factor: float) -> Colour:
    """`colour` times `factor`, at most 1."""
    red, green, blue = (min(1.0, factor * value) for value in colour)
    return red, green, blue


def axes(size: tuple[int, int]) -> tuple[Floats, Floats]:
    """Heights y (H, 1) in [0, 1] and x (1, W) in units of the height, centred on 0."""
    height, width = size
    y = (np.arange(height, dtype=np.float32) + np.float32(0.5)) / np.float32(height)
    x = (np.arange(width, dtype=np.float32) + np.float32(0.5) - np.float32(width / 2)) / np.float32(height)
    return y[:, None], x[None, :]


def smooth(edge0: float, edge1: float, x: Floats) -> Floats:
    """0 at edge0, 1 at edge1, without corners between."""
    t = np.clip((x - np.float32(edge0)) / np.float32(edge1 - edge0), 0, 1)
    return t * t * (3 - 2 * t)


def clouds(draws: Draws, size: tuple[int, int], cells: int = 4, octaves: int = 5) -> Floats:
    """Value noise (H, W) about 0.5, `cells` cells a height in the coarsest octave."""
    height, width = size
    total = np.zeros(size, np.float32)
    weight = 0.5
    for octave in range(octaves):
        step = height / (cells * 2**octave)
        rows, columns = _positions(height, step), _positions(width, step)
        grid = draws.grid((int(rows[0][-1]) + 2, int(columns[0][-1]) + 2))
        (i, u), (j, v) = rows, columns
        upper = grid[i][:, j] * (1 - v) + grid[i][:, j + 1] * v
        lower = grid[i + 1][:, j] * (1 - v) + grid[i + 1][:, j + 1] * v
        total += np.float32(weight) * (upper * (1 - u[:, None]) + lower * u[:, None])
        weight /= 2
    return total / np.float32(1 - 0.5**octaves)


def _positions(length: int, step: float) -> tuple[NDArray[np.int32], Floats]:
    at = np.arange(length, dtype=np.float32) / np.float32(step)
    cell = at.astype(np.int32)
    return cell, smooth(0, 1, at - cell.astype(np.float32))


def over(image: Floats, mask: Floats, colour: Floats | Colour) -> Floats:
    """`colour` laid over `image` (H, W, 3) where `mask` (H, W) says."""
    return image + mask[..., None] * (np.asarray(colour, np.float32) - image)


def gradient(y: Floats, top: Colour, bottom: Colour, width: int) -> Floats:
    """(H, width, 3) from `top` to `bottom` as y (H, 1) goes from 0 to 1."""
    ramp = np.asarray(top, np.float32) + y[..., None] * (np.asarray(bottom, np.float32) - np.asarray(top, np.float32))
    return np.broadcast_to(ramp, (y.shape[0], width, 3)).copy()


def ball(size: tuple[int, int], centre: tuple[float, float], radii: tuple[float, float]) -> tuple[Floats, Floats]:
    """Mask of an ellipse and its shading by a light from the upper left (0.35..1.1)."""
    y, x = axes(size)
    v, u = (y - np.float32(centre[1])) / np.float32(radii[1]), (x - np.float32(centre[0])) / np.float32(radii[0])
    inside = 1 - u * u - v * v
    depth = np.sqrt(np.maximum(inside, 0))
    shade = np.float32(0.5) + np.float32(0.35) * depth - np.float32(0.22) * u - np.float32(0.22) * v
    return smooth(-0.02, 0.03, inside), np.clip(shade, 0.3, 1.1)
