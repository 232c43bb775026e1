"""The grid against a naive trilinear loop, and its laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffretouch import bilateral_grid
from diffretouch.bilateral_grid import apply_affine, identity_affine, slice_and_apply, slice_grid


def _draw(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def _naive(grid: np.ndarray, guide: np.ndarray) -> np.ndarray:
    channels, *cells = grid.shape
    height, width = guide.shape
    out = np.zeros((channels, height, width))
    for y in range(height):
        for x in range(width):
            place = (guide[y, x] * cells[0], y * cells[1] / (height - 1), x * cells[2] / (width - 1))
            place = [min(max(p - 0.5, 0), n - 1) for p, n in zip(place, cells, strict=True)]
            for corner in np.ndindex(2, 2, 2):
                index = [min(math.floor(p) + c, n - 1) for p, c, n in zip(place, corner, cells, strict=True)]
                weight = np.prod([1 - abs(math.floor(p) + c - p) for p, c in zip(place, corner, strict=True)])
                out[:, y, x] += max(weight, 0) * grid[:, *index]
    return out


def test_slice_against_a_naive_loop() -> None:
    grid, guide = _draw(1, 12, 8, 5, 6), _draw(1, 1, 17, 23)
    assert np.allclose(slice_grid(grid, guide)[0].numpy(), _naive(grid[0].numpy(), guide[0, 0].numpy()), atol=1e-12)


@pytest.mark.parametrize("learning", [False, True])
def test_identity_gives_the_very_photo(learning: bool) -> None:
    photo = torch.rand(2, 3, 31, 18)
    grid = identity_affine()[None, :, None, None, None].expand(2, 12, 8, 4, 4)
    with torch.set_grad_enabled(learning):
        assert torch.equal(slice_and_apply(grid, photo.mean(1, keepdim=True), photo), photo)


@pytest.mark.parametrize("pixels", [1, 40, 1 << 20])
def test_bands_change_nothing(pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bilateral_grid, "BAND_PIXELS", pixels)
    grid, guide, photo = _draw(2, 12, 8, 4, 4), _draw(2, 1, 13, 19), _draw(2, 3, 13, 19)
    at_once = slice_and_apply(grid, guide, photo)
    with torch.no_grad():
        assert torch.equal(slice_and_apply(grid, guide, photo), at_once)
    assert torch.allclose(at_once, apply_affine(slice_grid(grid, guide), photo), atol=1e-12)


def test_gradients() -> None:
    inputs = tuple(x.requires_grad_() for x in (_draw(1, 12, 3, 2, 2), _draw(1, 1, 4, 5), _draw(1, 3, 4, 5)))
    assert torch.autograd.gradcheck(slice_and_apply, inputs)


def test_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="expected a grid"):
        slice_grid(torch.zeros(1, 9, 8, 4, 4), torch.zeros(1, 1, 8, 8))
