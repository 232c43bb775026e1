"""Colour, as torch functions on (..., 3, H, W) planes.

Source of the numbers: IEC 61966-2-1 (sRGB).
"""

from __future__ import annotations

import torch
from torch import Tensor

# IEC 61966-2-1: linear sRGB (D65) -> CIE 1931 XYZ, one row each of X, Y, Z
SRGB_TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))


def srgb_to_linear(srgb: Tensor) -> Tensor:
    """sRGB in [0,1] to linear light in [0,1], any shape; values outside follow the straight part or the power."""
    power = ((srgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(srgb <= 0.04045, srgb / 12.92, power)


def linear_to_srgb(linear: Tensor) -> Tensor:
    """Linear light in [0,1] to sRGB in [0,1], any shape."""
    power = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, linear * 12.92, power)
