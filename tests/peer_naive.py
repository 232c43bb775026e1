"""The peers' formulas, pixel by pixel and node by node, in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator
from scipy.signal import correlate2d

from diffretouch.peers import CSRNet

Array = NDArray[np.float64]


def trilinear(table: Array, photo: Array) -> Array:
    """(3,B,G,R), (3,H,W) in [0,1] -> (3,H,W)."""
    axes = [np.linspace(0, 1, n) for n in table.shape[1:]]
    blue_green_red = photo[::-1].reshape(3, -1).T
    planes = [RegularGridInterpolator(axes, plane)(blue_green_red) for plane in table]
    return np.stack(planes).reshape(photo.shape)


def roughness_and_falls(tables: Array) -> tuple[float, float]:
    """Zeng 2020's R_TV and R_m of (K,3,B,G,R), each step's mean by table and axis."""
    squares, downs = 0.0, 0.0
    for table in tables:
        for axis in (1, 2, 3):
            steps = []
            for place in np.ndindex(table.shape):
                after = tuple(p + (a == axis) for a, p in enumerate(place))
                if after[axis] < table.shape[axis]:
                    steps.append(table[after] - table[place])
            squares += sum(step * step for step in steps) / len(steps)
            downs += sum(max(-step, 0) for step in steps) / len(steps)
    return squares, downs


def csrnet(net: CSRNet, small: Array, photo: Array) -> Array:
    """`net` on one photo (3,H,W) that it sees as `small` (3,256,256)."""
    x = small
    for convolution in list(net.condition)[0:6:2]:
        kernel, bias = (p.detach().double().numpy() for p in convolution.parameters())
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        full = [
            sum(correlate2d(plane, k, mode="valid") for plane, k in zip(padded, one, strict=True)) for one in kernel
        ]
        x = np.maximum(np.stack(full)[:, ::2, ::2] + bias[:, None, None], 0)
    condition = x.mean((1, 2))

    out = np.empty_like(photo)
    for row, column in np.ndindex(photo.shape[1:]):
        values = photo[:, row, column]
        for place, (layer, modulation) in enumerate(zip(net.layers, net.modulations, strict=True)):
            weight, bias, w, b = (p.detach().double().numpy() for m in (layer, modulation) for p in m.parameters())
            if place:
                values = np.maximum(values, 0)
            values = weight[:, :, 0, 0] @ values + bias
            scale, shift = np.split(w @ condition + b, 2)
            values = values * scale + shift + values
        out[:, row, column] = values
    return out
