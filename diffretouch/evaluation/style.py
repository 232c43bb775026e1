"""A hand-made descriptor of a picture's colour and tone, standing where a trained style encoder would.

It sees how tones are distributed and coloured, not where things are: good enough to place a retouch among others of
the same photo. 26 numbers on CIE Lab of the picture reduced to 128 pixels:
 - 7 quantiles of lightness L (.02 .1 .25 .5 .75 .9 .98) and its standard deviation,
 - mean and standard deviation of a and b, and the covariance of a and b,
 - mean, median and 95 % quantile of chroma,
 - mean a and b of the darkest, middle and brightest thirds of the pixels (split toning),
 - local contrast: mean size of the steps in L between neighbours, along and across; saturation: mean C / sqrt(C^2+L^2),
   and the share of pixels with L over 97 and under 3.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from diffretouch.files.pictures import Picture, reduce_to
from diffretouch.metrics import lab

NAME = "hand-made colour-and-tone descriptor"
LONG_EDGE = 128
QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
FEATURES = (
    *(f"lightness_q{round(q * 100):02d}" for q in QUANTILES),
    *("lightness_sd", "a_mean", "b_mean", "a_sd", "b_sd", "ab_covariance", "chroma_mean", "chroma_q50", "chroma_q95"),
    *(f"{axis}_{third}" for third in ("shadows", "middle", "highlights") for axis in ("a", "b")),
    *("step_along", "step_across", "saturation", "clipped_share"),
)


def describe(image: Picture) -> NDArray[np.float64]:
    """One number for each of FEATURES, in Lab units and shares, of an sRGB picture (H,W,3) in [0,1]."""
    picture = lab(reduce_to(image, long_edge=LONG_EDGE)).astype(np.float64)
    lightness, a, b = np.moveaxis(picture, -1, 0)
    chroma = np.hypot(a, b)
    darkest_first = np.argsort(lightness, axis=None, kind="stable")
    thirds = [(a.flat[part].mean(), b.flat[part].mean()) for part in np.array_split(darkest_first, 3)]
    return np.array(
        [
            *np.quantile(lightness, QUANTILES),
            lightness.std(),
            *(a.mean(), b.mean(), a.std(), b.std(), np.mean((a - a.mean()) * (b - b.mean()))),
            *(chroma.mean(), np.quantile(chroma, 0.5), np.quantile(chroma, 0.95)),
            *np.ravel(thirds),
            np.abs(np.diff(lightness, axis=1)).mean(),
            np.abs(np.diff(lightness, axis=0)).mean(),
            np.mean(chroma / np.sqrt(chroma**2 + lightness**2 + 1e-9)),
            np.mean((lightness > 97) | (lightness < 3)),
        ]
    )


def style_space(table: pd.DataFrame) -> NDArray[np.float64]:
    """Rows of FEATURES with columns photo_id and kind -> the same rows as style, free of the photo's content.

    From every row the mean over its photo's ground truths is taken away: 0 is "what the experts do to this photo on
    average", so photos of different content can be compared. (Relative to the input instead, all inputs would be one
    point.) Then each feature is divided by the ground truths' own standard deviation over the table.
    """
    features = list(FEATURES)
    truths = table[table["kind"] == "ground_truth"]
    centre = truths.groupby("photo_id")[features].mean()
    away = table[features].to_numpy(float) - centre.loc[table["photo_id"]].to_numpy(float)
    spread = away[(table["kind"] == "ground_truth").to_numpy()].std(axis=0)
    return away / np.where(spread > 1e-6, spread, 1.0)


def nearest(table: pd.DataFrame, style: NDArray[np.float64]) -> pd.DataFrame:
    """For every row: which of ground truths and inputs is `nearest`, and the `distance` to the nearest ground truth.

    Euclidean in style space, over all photos; a picture is not its own neighbour.
    """
    distance = {}
    for kind in ("ground_truth", "input"):
        own = (table["kind"] == kind).to_numpy()
        neighbours = NearestNeighbors(n_neighbors=1).fit(style[own])
        away = np.full(len(table), np.inf)
        if own.sum() > 1:  # alone, a picture has no neighbour of its kind
            away[own] = neighbours.kneighbors()[0][:, 0]
        if not own.all():
            away[~own] = neighbours.kneighbors(style[~own])[0][:, 0]
        distance[kind] = away
    closer = np.where(distance["ground_truth"] <= distance["input"], "ground_truth", "input")
    return pd.DataFrame({"nearest": closer, "distance": distance["ground_truth"]}, index=table.index)
