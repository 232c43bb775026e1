"""From one row a comparison to the tables people read: `metrics.csv` in full, `metrics.json` the headlines.

A row without an expert averages over experts and samples: first within each photo, then over photos, with an interval
from resampling scenes. All numbers are rounded to 4 decimals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import pandas as pd

from diffretouch.attributes import ATTRIBUTES
from diffretouch.config import Evaluate
from diffretouch.evaluation import control
from diffretouch.metrics import SMALLEST_MSE, Interval, bootstrap, group_level_consistency

ROWS = ("input", "mean_expert", "expert", "neutral", "random_0_1", "random_1_2", "random_2_3")
METRICS = ("psnr", "ssim", "ciede2000", "lpips", "psnr_hc", "delta_e_hc")
COLUMNS = ("split", "row", "slice", "metric", "mean", "low", "high", "n", "groups", "provenance")
SLICED = ("input", "mean_expert", "expert")
HEADLINE = "test"
DECIMALS = 4

Estimate = Callable[[pd.Series], Interval]
Line = tuple[str, str, str, Interval]


def estimator(groups: Mapping[str, str], settings: Evaluate) -> Estimate:
    """Values indexed by photo_id -> their mean with a bootstrap interval over the photos' groups."""
    return lambda values: _interval(values, [groups[photo] for photo in values.index], settings)


def _interval(values: pd.Series, members: Sequence[str], settings: Evaluate) -> Interval:
    return bootstrap(
        values.to_numpy(float),
        members,
        resamples=settings.bootstrap,
        confidence=settings.confidence,
        seed=settings.seed,
    )


def picture_lines(rows: pd.DataFrame, estimate: Estimate) -> list[Line]:
    """Every row of ROWS, by metric, over all experts and for each, and best-of-N PSNR where there are several draws."""
    lines: list[Line] = []
    for name in ROWS:
        part = rows[rows["sweep"] == name]
        for metric in (m for m in METRICS if m in part and part[m].notna().any()):
            lines.append((name, "all", metric, estimate(part.groupby("photo_id")[metric].mean())))
            for expert, own in part.groupby("expert"):
                lines.append((name, f"expert_{expert}", metric, estimate(own.groupby("photo_id")[metric].mean())))
        draws = int(part.groupby(["photo_id", "expert"]).size().max()) if len(part) else 0
        if draws > 1:
            best = part.groupby(["photo_id", "expert"])["psnr"].max().groupby("photo_id").mean()
            lines.append((name, "all", f"psnr_best_of_{draws}", estimate(best)))
    return lines


def slice_lines(rows: pd.DataFrame, estimate: Estimate) -> list[Line]:
    """Rows of SLICED by metric over the photos of one camera (`camera_Canon EOS 5D`), and of one category.

    A photo counts for every word of its `categories` (`category_portrait`), and for none where it has none. A slice of
    one scene has no interval: resampling that scene would give a width of 0.
    """
    chosen = rows[rows["sweep"].isin(SLICED)]
    cameras = chosen.assign(tag="camera_" + chosen["camera"])[chosen["camera"] != ""]
    words = chosen.assign(word=chosen["categories"].str.split()).explode("word").dropna(subset="word")
    tagged = pd.concat([cameras, words.assign(tag="category_" + words["word"])])
    lines: list[Line] = []
    for (tag, sweep), own in tagged.groupby(["tag", "sweep"]):
        for metric in (m for m in METRICS if m in own and own[m].notna().any()):
            found = estimate(own.groupby("photo_id")[metric].mean())
            known = found if found.groups > 1 else replace(found, low=np.nan, high=np.nan)
            lines.append((sweep, tag, metric, known))
    return lines


def difference_lines(rows: pd.DataFrame, estimate: Estimate) -> list[Line]:
    """`expert` against the two references, photo by photo: dB won, with an interval of the difference."""
    means = rows.groupby(["sweep", "photo_id"])["psnr"].mean()
    if "expert" not in means.index.get_level_values("sweep"):
        return []
    return [
        (f"expert_minus_{other}", "all", "psnr", estimate((means["expert"] - means[other]).dropna()))
        for other in ("input", "mean_expert")
    ]


def variance_lines(rows: pd.DataFrame, estimate: Estimate) -> list[Line]:
    """Share of the experts' variance (their squared distance to their own mean, photo by photo) that `expert` explains.

    `variance_share` = 1 - mse(ours) / mse(mean_expert): 0 is as good as the experts' mean, 1 is perfect, below 0 is
    worse than the mean. `style_variance_share` asks the same of the differences between experts only, whatever all
    our results of a photo have in common (`style_mse`).
    """
    squared = rows.assign(mse=10 ** (-rows["psnr"].astype(float) / 10)).groupby(["sweep", "photo_id"])
    mean_mse = squared["mse"].mean()
    if "expert" not in mean_mse.index.get_level_values("sweep"):
        return []
    variance = mean_mse["mean_expert"].clip(lower=SMALLEST_MSE)
    share = (1 - mean_mse["expert"] / variance).dropna()
    lines: list[Line] = [("expert", "all", "variance_share", estimate(share))]
    style = rows[rows["sweep"] == "expert"].groupby("photo_id")["style_mse"].mean().dropna()
    if len(style):
        lines.append(("expert", "all", "style_variance_share", estimate((1 - style / variance).dropna())))
    return lines


def control_lines(
    axis_rows: pd.DataFrame, ground_truths: pd.DataFrame, ranges: pd.DataFrame, estimate: Estimate
) -> list[Line]:
    """Slope and Spearman of each slider, their means, and the cross-talk beside the experts' own correlation.

    The correlation is one number pooled over photos: it has no interval, and `n` counts the photos pooled.
    """
    fitted = control.slopes(control.responses(axis_rows, ranges))
    own = fitted[fitted["moved"] == fitted["attribute"]]
    lines: list[Line] = []
    for metric in ("slope", "spearman"):
        for name in ATTRIBUTES:
            values = own[own["attribute"] == name].set_index("photo_id")[metric]
            lines.append(("control", name, metric, estimate(values)))
        lines.append(("control", "all", metric, estimate(own.groupby("photo_id")[metric].mean())))
    correlation = control.experts_correlation(ground_truths, ranges)
    usable = ranges[ranges["photo_id"].isin(ground_truths["photo_id"])]
    for moved in ATTRIBUTES:
        for other in ATTRIBUTES:
            part = fitted[(fitted["moved"] == moved) & (fitted["attribute"] == other)].set_index("photo_id")["slope"]
            strength = estimate(part.abs())
            lines.append(("cross_talk", f"{moved}->{other}", "absolute_slope", strength))
            if moved != other:
                value = float(correlation.loc[moved, other])
                pooled = usable[usable[[f"half_{moved}", f"half_{other}"]].notna().all(axis=1)]["photo_id"]
                counted = estimate(pd.Series(value, index=pooled, dtype=float))
                known = replace(counted, mean=value, low=np.nan, high=np.nan)
                lines.append(("cross_talk", f"{moved}->{other}", "experts_correlation", known))
    return lines


def consistency_lines(rows: pd.DataFrame, groups: Mapping[str, str], settings: Evaluate) -> list[Line]:
    """PPR10K's GLC of the rows with one picture a photo and expert, averaged over experts; n counts groups here."""
    lines: list[Line] = []
    for name in ("input", "mean_expert", "expert", "neutral"):
        part = rows[rows["sweep"] == name]
        found = [
            group_level_consistency(own[["mean_a", "mean_b"]], [groups[photo] for photo in own["photo_id"]])
            for _, own in part.groupby("expert")
        ]
        values = pd.DataFrame(found).mean()
        if len(values):
            members = [str(name) for name in values.index]
            lines.append((name, "all", "glc", _interval(values, members, settings)))
    return lines


def table(split: str, lines: Sequence[Line], provenance: str) -> pd.DataFrame:
    """Lines as a table of COLUMNS, rounded; lines that no photo supports are left out."""
    found = [
        {"split": split, "row": row, "slice": part, "metric": metric, **asdict(interval), "provenance": provenance}
        for row, part, metric, interval in lines
        if interval.n and np.isfinite(interval.mean)
    ]
    # rounding leaves -0.0, which compares equal to 0.0 and so is replaced like it
    return pd.DataFrame(found, columns=list(COLUMNS)).round(DECIMALS).replace({-0.0: 0.0})


def headlines(frame: pd.DataFrame) -> dict[str, dict[str, dict[str, dict[str, float | int]]]]:
    """At most 40 numbers: test -> row -> metric -> {mean, low, high, n, groups}; PSNR of ROWS and the mean slope."""
    chosen = frame[(frame["split"] == HEADLINE) & (frame["slice"] == "all")]
    wanted = [(name, "psnr") for name in ROWS] + [("control", "slope")]
    tree: dict[str, dict[str, dict[str, float | int]]] = {}
    for row, metric in wanted:
        for line in chosen[(chosen["row"] == row) & (chosen["metric"] == metric)].to_dict("records"):
            numbers = {key: float(line[key]) for key in ("mean", "low", "high")}
            tree[row] = {metric: {**numbers, "n": int(line["n"]), "groups": int(line["groups"])}}
    return {HEADLINE: tree}
