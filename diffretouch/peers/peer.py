"""What all peers share: they see a photo small and change it at its own size, in bands where memory matters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

SEEN = 256
"""Side in pixels of the square in which a peer sees the photo as a whole."""
BAND_PIXELS = 1 << 14
"""Pixels worked on at a time outside training: 64 channels of them are 4 MiB in fp32, which stay in a processor's
cache (CSRNet measured: a quarter of the time of 1 << 18)."""


class Peer(nn.Module):
    """A deterministic retoucher: sRGB (N,3,H,W) in [0,1] of any size -> (N,3,H,W), not clamped."""

    detail: int = SEEN
    """Side in pixels of the squares it is trained on; photos in use are reduced to it before it looks at them, so that
    they are as sharp as those."""
    chances: tuple[int, ...] = ()
    """Shape of the random numbers in [0,1) that each photo of a training step brings as forward's second argument;
    () where training is as deterministic as use."""

    def regulariser(self) -> Tensor:
        """What the loss of training adds to the mean squared error of pictures in [0,1]: a scalar."""
        return torch.zeros((), device=next(self.parameters()).device)

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """All parameters with their learning rates, `rate` or a share of it, and no weight decay: as optimisers ask."""
        return [{"params": list(self.parameters()), "lr": rate, "weight_decay": 0.0}]


def seen(photo: Tensor, detail: int = SEEN) -> Tensor:
    """A photo as a peer sees it, with no more than `detail` x `detail` pixels' worth of detail: (N,3,H,W) ->
    (N,3,256,256), same range, antialiased, squared.
    """
    square = partial(interpolate, mode="bilinear", antialias=True, align_corners=False)
    if detail < SEEN:
        photo = square(photo, size=(detail, detail))
    return square(photo, size=(SEEN, SEEN))


def in_bands(pixelwise: Callable[[Tensor], Tensor], photo: Tensor) -> Tensor:
    """`pixelwise(photo)`, (N,3,H,W) -> (N,C,H,W), for a function of each pixel alone.

    Without gradients this runs in bands of rows, so that memory stays bounded.
    """
    rows = max(1, BAND_PIXELS // (len(photo) * photo.shape[3]))
    if torch.is_grad_enabled() or rows >= photo.shape[2]:
        return pixelwise(photo)
    first = pixelwise(photo[:, :, :rows])
    out = first.new_empty(len(photo), first.shape[1], *photo.shape[2:])
    out[:, :, :rows] = first
    for top in range(rows, photo.shape[2], rows):
        band = slice(top, top + rows)
        out[:, :, band] = pixelwise(photo[:, :, band])
    return out
