"""How far a picture is from an expert's, and how sure a mean is.

Pictures are (H,W,3) sRGB in [0,1]; a peak of 1 everywhere. Lab is CIE 1976 L*a*b* under D65, (H,W,3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import structural_similarity

Picture = NDArray[np.floating]

SMALLEST_MSE = 1e-10
"""Equal pictures count as 100 dB, so that a mean over photos stays finite."""


@dataclass(frozen=True)
class Interval:
    """A mean with its percentile bootstrap interval."""

    mean: float
    low: float
    high: float
    n: int
    """Photos."""
    groups: int
    """Scenes: what is resampled."""


def lab(image: Picture) -> Picture:
    """CIE Lab (D65) of an sRGB picture."""
    return rgb2lab(image)


def mse(image: Picture, target: Picture) -> float:
    """Mean squared difference over pixels and channels."""
    return float(np.mean(np.square(image - target), dtype=np.float64))


def psnr(image: Picture, target: Picture) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(1 / mse), larger is better."""
    return float(-10 * np.log10(max(mse(image, target), SMALLEST_MSE)))


def ssim(image: Picture, target: Picture) -> float:
    """Structural similarity, larger is better; at least 11 x 11 pixels.

    Wang et al. 2004: Gaussian window (sigma 1.5, 11 x 11), K1 .01, K2 .03, population covariance, data range 1, each
    RGB channel on its own; the mean leaves out the border of 5 pixels.
    """
    return float(
        structural_similarity(
            image,
            target,
            channel_axis=-1,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def ciede2000(image_lab: Picture, target_lab: Picture) -> float:
    """Mean CIEDE2000 over pixels, kL = kC = kH = 1, of two Lab pictures; smaller is better."""
    return float(np.mean(deltaE_ciede2000(image_lab, target_lab), dtype=np.float64))


def human_centred_weight(mask: Picture) -> Picture:
    """PPR10K: (H,W) mask in [0,1] -> (H,W,1) weight, 1 on the person and 0.5 elsewhere."""
    return 0.5 + 0.5 * mask[..., None]


def psnr_hc(image: Picture, target: Picture, weight: Picture) -> float:
    """PPR10K's human-centred PSNR in dB: of w P against w T, peak 1, not renormalised."""
    return psnr(weight * image, weight * target)


def delta_e_hc(image_lab: Picture, target_lab: Picture, weight: Picture) -> float:
    """PPR10K's human-centred colour difference: mean Euclidean length of w Lab_P - w Lab_T; smaller is better."""
    return float(np.mean(np.linalg.norm(weight * (image_lab - target_lab), axis=-1), dtype=np.float64))


def group_level_consistency(mean_ab: ArrayLike, groups: Sequence[str]) -> dict[str, float]:
    """PPR10K's GLC, a value a group: the mean over {a, b} of the sample variance of the pictures' mean a, b.

    mean_ab is (N,2); groups of one picture have no variance and are left out. Smaller is better, and a constant
    output scores 0: never report it alone.
    """
    values, names = np.asarray(mean_ab, float), np.asarray(groups)
    return {
        str(name): float(values[names == name].var(axis=0, ddof=1).mean())
        for name in np.unique(names)
        if (names == name).sum() > 1
    }


def bootstrap(values: ArrayLike, groups: Sequence[str], *, resamples: int, confidence: float, seed: int) -> Interval:
    """Mean of `values`, one a photo, with a percentile interval from resampling whole groups.

    A resample draws as many groups as there are, with replacement, and takes the mean over all their photos. Photos
    without a value (NaN) are left out first. The same seed draws the same groups, so rows of one table move together.
    """
    all_values = np.asarray(values, float)
    known = all_values[~np.isnan(all_values)]
    if not known.size:
        return Interval(np.nan, np.nan, np.nan, 0, 0)
    unique, member = np.unique(np.asarray(groups)[~np.isnan(all_values)], return_inverse=True)
    sums, counts = np.bincount(member, known), np.bincount(member)
    drawn = np.random.default_rng(seed).integers(len(unique), size=(resamples, len(unique)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(known.mean()), float(low), float(high), known.size, len(unique))
