"""The four attributes of a picture: one differentiable function, shared by the attribute stage, the loss and the
evaluation.

Larger means more colourful, brighter, more contrast, warmer.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from diffretouch.color import SRGB_TO_XYZ, srgb_to_linear

ATTRIBUTES = ("colorfulness", "brightness", "contrast", "temperature")

EPSILON = 1e-8
"""Added under every root, so that gradients stay finite on grey and black pictures."""


def scores(image: Tensor, size: int = 512) -> Tensor:
    """The attributes of sRGB pictures in [0,1], (N,3,H,W) -> (N,4) in the order of ATTRIBUTES.

    Every picture is first resized (bilinear, antialiased) to size x size, because contrast depends on size. Units:
    colorfulness and brightness on the [0,1] scale, contrast a mean squared difference, temperature in mired.
    """
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"scores wants (N,3,H,W), got {tuple(image.shape)}")
    if image.shape[2:] != (size, size):
        image = interpolate(image, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return torch.stack([_colorfulness(image), _brightness(image), _contrast(image), _temperature(image)], dim=1)


def soft_clamp(image: Tensor, knee: float = 0.02) -> Tensor:
    """[0,1] with rounded corners: softplus knees of width `knee` at both ends, identity to 2e-4 from 5 knees inward.

    Results D pass through it before they are scored, so a pixel beyond white still has a gradient.
    """
    softplus = torch.nn.functional.softplus
    return (softplus(image, beta=1 / knee) - softplus(image - 1, beta=1 / knee)).clamp(0, 1)


def _colorfulness(image: Tensor) -> Tensor:
    # absolute opponent values, on purpose, unlike Hasler and Suesstrunk (2003)
    red, green, blue = image.flatten(2).unbind(1)
    rg, yb = (red - green).abs(), ((red + green) / 2 - blue).abs()
    spread = (rg.var(1, correction=0) + yb.var(1, correction=0) + EPSILON).sqrt()
    return spread + 0.3 * (rg.mean(1) ** 2 + yb.mean(1) ** 2 + EPSILON).sqrt()


def _brightness(image: Tensor) -> Tensor:
    red, green, blue = image.flatten(2).mean(2).unbind(1)
    return (0.241 * red**2 + 0.691 * green**2 + 0.068 * blue**2 + EPSILON).sqrt()


def _contrast(image: Tensor) -> Tensor:
    height, width = image.shape[2:]
    # replicated borders add zero differences, so each inner pair simply counts twice
    total = 2 * (
        (image[..., 1:, :] - image[..., :-1, :]).square().sum((1, 2, 3))
        + (image[..., :, 1:] - image[..., :, :-1]).square().sum((1, 2, 3))
    )
    return total / (4 * (height - 2) * (width - 2) + 3 * (2 * (height - 2) + 2 * (width - 2)) + 8)


def _temperature(image: Tensor) -> Tensor:
    red, green, blue = srgb_to_linear(image).flatten(2).mean(2).clamp(min=1e-5).unbind(1)
    x, y, z = (row[0] * red + row[1] * green + row[2] * blue for row in SRGB_TO_XYZ)
    total = x + y + z
    # McCamy (1992): n points from the epicentre (.3320, .1858) along an isotherm
    n = (x / total - 0.3320) / -(y / total - 0.1858).clamp(min=0.02)
    inside = n.clamp(-1.0, 1.49)
    mired = 1e6 / (449 * inside**3 + 3525 * inside**2 + 6823.3 * inside + 5520.33)
    # McCamy folds back beyond these n: go on with the slope there
    return mired - 356 * (n - inside).clamp(max=0) - 33 * (n - inside).clamp(min=0)
