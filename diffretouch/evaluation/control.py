"""How far the sliders do what they say.

Along one attribute's axis, all else equal, the measured attribute of the results is divided by the half-range of the
photo's experts: a slope of 1 means that c from -1 to 1 spans exactly what the experts span.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from diffretouch.attributes import ATTRIBUTES
from diffretouch.condition import just_noticeable, photo_range
from diffretouch.config import Attributes


def half_ranges(ground_truths: pd.DataFrame, settings: Attributes) -> pd.DataFrame:
    """One row a photo: `mid_<attribute>` and `half_<attribute>` of its experts' scores, for every attribute.

    A half-range under the just-noticeable difference is NaN: the photo says nothing about that attribute. Photos with
    a single expert are left out.
    """
    columns = [f"score_{name}" for name in ATTRIBUTES]
    rows = []
    for photo_id, part in ground_truths.groupby("photo_id"):
        if len(part) < 2:
            continue
        mid, half = photo_range(torch.tensor(part[columns].to_numpy(np.float64)))
        half = torch.where(half < just_noticeable(mid, settings), torch.nan, half)
        row = {"photo_id": photo_id} | {f"mid_{n}": float(m) for n, m in zip(ATTRIBUTES, mid, strict=True)}
        rows.append(row | {f"half_{n}": float(h) for n, h in zip(ATTRIBUTES, half, strict=True)})
    return pd.DataFrame(rows, columns=["photo_id", *(f"{k}_{n}" for k in ("mid", "half") for n in ATTRIBUTES)])


def responses(axis_rows: pd.DataFrame, ranges: pd.DataFrame) -> pd.DataFrame:
    """Long table photo_id, moved, attribute, c, response: what moving one slider did to each attribute.

    response = (score - mid) / half of that photo; (photo, attribute) pairs without a usable half-range are left out,
    also as the moved slider.
    """
    joined = axis_rows.merge(ranges, on="photo_id", validate="many_to_one")
    parts = []
    for moved in ATTRIBUTES:
        rows = joined[(joined["sweep"] == f"axis_{moved}") & joined[f"half_{moved}"].notna()]
        for name in ATTRIBUTES:
            response = (rows[f"score_{name}"] - rows[f"mid_{name}"]) / rows[f"half_{name}"]
            part = {"photo_id": rows["photo_id"], "moved": moved, "attribute": name, "c": rows[f"c_{moved}"]}
            parts.append(pd.DataFrame(part | {"response": response}))
    return pd.concat(parts, ignore_index=True).dropna(subset="response").reset_index(drop=True)


def slopes(table: pd.DataFrame) -> pd.DataFrame:
    """photo_id, moved, attribute, slope (least squares of response on c), spearman (0 where nothing moves)."""
    rows = []
    for (photo_id, moved, name), part in table.groupby(["photo_id", "moved", "attribute"], sort=True):
        c, response = part["c"].to_numpy(float), part["response"].to_numpy(float)
        spread = ((c - c.mean()) ** 2).sum()
        slope = ((c - c.mean()) * response).sum() / spread if spread else np.nan
        rank = spearmanr(c, response).statistic if np.ptp(response) > 0 and spread else 0.0
        rows.append(
            {"photo_id": photo_id, "moved": moved, "attribute": name, "slope": float(slope), "spearman": float(rank)}
        )
    return pd.DataFrame(rows, columns=["photo_id", "moved", "attribute", "slope", "spearman"])


def experts_correlation(ground_truths: pd.DataFrame, ranges: pd.DataFrame) -> pd.DataFrame:
    """(4,4): Pearson correlation of the experts' own (score - mid) / half, pooled over photos, NaN pairs left out."""
    joined = ground_truths.merge(ranges, on="photo_id", validate="many_to_one")
    away = {n: (joined[f"score_{n}"] - joined[f"mid_{n}"]) / joined[f"half_{n}"] for n in ATTRIBUTES}
    return pd.DataFrame(away).corr()


def excess_cross_talk(fitted: pd.DataFrame, correlation: pd.DataFrame) -> pd.DataFrame:
    """photo_id, moved, attribute, value: how far slopes of other attributes lie outside 0 to the experts' correlation.

    Experts that tie two attributes together explain no slope the other way round. Where they tell no correlation, all
    of the slope counts.
    """
    other = fitted[fitted["moved"] != fitted["attribute"]]
    pairs = zip(other["moved"], other["attribute"], strict=True)
    known = np.nan_to_num(np.array([correlation.loc[m, a] for m, a in pairs], float))
    value = (other["slope"] - other["slope"].clip(np.minimum(known, 0), np.maximum(known, 0))).abs()
    return other[["photo_id", "moved", "attribute"]].assign(value=value)
