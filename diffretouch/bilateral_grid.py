"""Slicing an affine bilateral grid and applying it to a photo of any size (Gharbi 2017, as Duan 2025 has it).

A grid is (N,12,D,GH,GW): 3 rows of (3 weights + bias), D guide bins, GH x GW cells. Cell centres lie as in
`grid_sample(align_corners=False, padding_mode="border")` at coordinates 2x/(W-1)-1: grid coordinate x GW/(W-1) - 1/2.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

BAND_PIXELS = 1 << 20
"""Pixels whose 12 coefficients are held at a time by `slice_and_apply` outside training: 48 MiB in fp32."""


def identity_affine(device: torch.device | None = None) -> Tensor:
    """The 12 coefficients that leave a photo as it is: (12,)."""
    return torch.eye(3, 4, device=device).flatten()


def slice_grid(grid: Tensor, guide: Tensor) -> Tensor:
    """Trilinear lookup: (N,12,D,GH,GW), guide (N,1,H,W) in [0,1] -> affine (N,12,H,W)."""
    _check(grid, guide)
    return _slice(grid, guide, torch.linspace(-1, 1, guide.shape[2], dtype=grid.dtype, device=grid.device))


def apply_affine(affine: Tensor, image: Tensor) -> Tensor:
    """Every pixel through its own affine map: (N,12,H,W), (N,3,H,W) -> (N,3,H,W), not clamped."""
    rows = affine.unflatten(1, (3, 4))
    return (rows[:, :, :3] * image[:, None]).sum(2) + rows[:, :, 3]


def slice_and_apply(grid: Tensor, guide: Tensor, image: Tensor) -> Tensor:
    """`apply_affine(slice_grid(grid, guide), image)` at any size: grid, (N,1,H,W), (N,3,H,W) -> (N,3,H,W).

    What is looked up is the grid's difference from the identity, so that an identity grid gives the very photo: weights
    of an interpolation add up to 1 to rounding only. Without gradients this runs in bands of rows, so that memory stays
    bounded.
    """
    _check(grid, guide)
    # made on the grid's device: a copy from the CPU would wait for all that a GPU has still to do
    grid = grid - identity_affine(grid.device).to(grid.dtype)[:, None, None, None]
    if torch.is_grad_enabled():
        return image + apply_affine(slice_grid(grid, guide), image)
    height, width = guide.shape[2:]
    rows = torch.linspace(-1, 1, height, dtype=grid.dtype, device=grid.device)
    tall = max(1, BAND_PIXELS // (len(grid) * width))
    out = torch.empty_like(image)
    for top in range(0, height, tall):
        band = slice(top, top + tall)
        seen = image[:, :, band]
        out[:, :, band] = seen + apply_affine(_slice(grid, guide[:, :, band], rows[band]), seen)
    return out


def _slice(grid: Tensor, guide: Tensor, rows: Tensor) -> Tensor:
    """`slice_grid` for a band whose rows lie at `rows` in [-1,1]."""
    columns = torch.linspace(-1, 1, guide.shape[3], dtype=grid.dtype, device=grid.device)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    plane = torch.stack([x, y], dim=-1).expand(len(grid), -1, -1, -1)
    where = torch.cat([plane, guide[:, 0, :, :, None] * 2 - 1], dim=-1)
    return grid_sample(grid, where[:, None], mode="bilinear", padding_mode="border", align_corners=False)[:, :, 0]


def _check(grid: Tensor, guide: Tensor) -> None:
    if grid.ndim != 5 or grid.shape[1] != 12 or guide.ndim != 4 or guide.shape[1] != 1:
        raise ValueError(
            f"expected a grid (N,12,D,GH,GW) and a guide (N,1,H,W), got {tuple(grid.shape)} and {tuple(guide.shape)}"
        )
