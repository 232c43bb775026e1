"""From every arm's tables to one: a value a photo and measure, then means over seeds and photos with intervals.

Measures of the long table, by `slice` (all, expert_<x>, an attribute, a pair `moved->other`):

 - psnr, ssim, ciede2000: ours told each expert's c (an oracle), a peer's one result, `input` and `mean_expert` as they
   are; an arm that learned one expert is compared with that one alone.
 - psnr_minus_<other>: paired, photo by photo, seeds averaged on both sides; `best_peer` is the pooled peer of the
   highest PSNR over all experts.
 - slope, spearman; excess_cross_talk: how far the slope of another attribute lies outside the range from 0 to the
   experts' own correlation; `all` is the mean over pairs.
 - texture: `texture.survival`; texture_experts: of the experts' own results.
 - psnr_autoencoder, slope_autoencoder, texture_autoencoder: of an arm painted by its autoencoder's decoder, what that
   alone makes of the experts' own results (`probe.decoder`).
 - psnr_best_of: to each expert, the best of N draws (`probe.expected_best`); psnr_best_of_minus_best_peer: `best_peer`
   is in each slice the pooled peer of the highest psnr_best_of there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

import pandas as pd

from diffretouch.attributes import ATTRIBUTES
from diffretouch.comparing.arms import Run
from diffretouch.config import Attributes, Params
from diffretouch.evaluation import control
from diffretouch.evaluation.summary import DECIMALS, estimator
from diffretouch.files.scales import read_scales
from diffretouch.files.tables import read_table
from diffretouch.files.workspace import stage_dir
from diffretouch.metrics import Interval

METRICS = ("psnr", "ssim", "ciede2000")
REFERENCES = ("input", "mean_expert")
KEYS = ["arm", "seed", "photo_id", "metric", "slice"]
COLUMNS = ("arm", "seed", "metric", "slice", "mean", "low", "high", "n", "groups", "provenance")
BEST = "best_peer"
SHOWN_BY_SEED = (
    "psnr",
    "psnr_minus_mean_expert",
    f"psnr_minus_{BEST}",
    "slope",
    "excess_cross_talk",
    "texture",
    "psnr_best_of",
)
"""Measures whose every seed stands in the small table; the others are there as means over seeds."""


def per_photo(runs: Sequence[Run], dataset: str) -> pd.DataFrame:
    """All arms' values: KEYS and value; `input` and `mean_expert` are arms with seed -1."""
    truths = read_table(stage_dir("attributes", dataset) / "attributes.parquet", ["photo_id", "expert"])
    scales = read_scales(dataset)
    ranges = control.half_ranges(truths, Attributes(**{name: scales[name] for name in Attributes.model_fields}))
    parts: list[pd.DataFrame] = []
    for run in runs:
        table = read_table(run.work("evaluate") / "per_sample.parquet", ["photo_id", "sweep", "split"])
        table = table[table["split"] == "test"]
        probed = read_table(run.work("probe") / "probe.parquet", ["photo_id", "metric", "slice", "value"])
        if not parts:
            parts += [_compared(table, name).assign(arm=name, seed=-1) for name in REFERENCES]
        if run.arm.experts == "one":
            own = _compared(table, "neutral")
            own = own[own["slice"] == f"expert_{run.params.compare.expert}"]
            probed = probed[probed["metric"] == "texture"]
        elif run.arm.network == "diffretouch":
            correlation = control.experts_correlation(truths[truths["photo_id"].isin(table["photo_id"])], ranges)
            moved = _moved(table[table["sweep"].str.startswith("axis_")], ranges, correlation)
            own = pd.concat([_compared(table, "expert"), moved])
        else:
            own = _compared(table, "neutral")
        best = probed[probed["metric"] == "psnr_best_of"].groupby("photo_id", as_index=False)["value"].mean()
        best = best.assign(metric="psnr_best_of", slice="all")
        parts.append(pd.concat([own, probed, best]).assign(arm=run.name, seed=run.seed))
    return pd.concat(parts, ignore_index=True)[[*KEYS, "value"]].dropna(subset="value").reset_index(drop=True)


def _compared(table: pd.DataFrame, sweep: str) -> pd.DataFrame:
    """photo_id, metric, slice, value: METRICS by expert, and their mean over experts as `all`."""
    part = table[table["sweep"] == sweep].melt(["photo_id", "expert"], list(METRICS), var_name="metric")
    part["value"] = part["value"].astype(float)
    each = part.assign(slice="expert_" + part["expert"].astype(str)).drop(columns="expert")
    both = part.groupby(["photo_id", "metric"], as_index=False)["value"].mean().assign(slice="all")
    return pd.concat([each, both])


def _moved(axis_rows: pd.DataFrame, ranges: pd.DataFrame, correlation: pd.DataFrame) -> pd.DataFrame:
    """photo_id, metric, slice, value of the sliders."""
    fitted = control.slopes(control.responses(axis_rows, ranges))
    own = fitted[fitted["moved"] == fitted["attribute"]].drop(columns="moved")
    own = own.melt(["photo_id", "attribute"], ["slope", "spearman"], var_name="metric")
    other = control.excess_cross_talk(fitted, correlation)
    names = {"metric": "excess_cross_talk", "attribute": other["moved"] + "->" + other["attribute"]}
    both = pd.concat([own, other[["photo_id", "value"]].assign(**names)]).rename(columns={"attribute": "slice"})
    every = both.groupby(["photo_id", "metric"], as_index=False)["value"].mean().assign(slice="all")
    return pd.concat([both, every])


def summarise(values: pd.DataFrame, params: Params, dataset: str, provenance: str) -> pd.DataFrame:
    """The long table: a line an arm, measure and slice, of every seed and of all (`seed` "all"), with intervals."""
    manifest = read_table(stage_dir("decode", dataset) / "manifest.parquet", ["photo_id", "group"])
    estimate = estimator(dict(zip(manifest["photo_id"], manifest["group"], strict=True)), params.evaluate)
    over_seeds = (
        values.groupby(["arm", "photo_id", "metric", "slice"], as_index=False)["value"].mean().assign(seed="all")
    )
    others = _others(over_seeds, params)
    frames = [over_seeds, _differences(over_seeds, over_seeds, others)]
    for seed, own in values[values["seed"] >= 0].groupby("seed"):
        own = own.assign(seed=str(seed))
        frames += [own, _differences(own, over_seeds, others)]
    everything = pd.concat(frames, ignore_index=True)
    lines = [
        _line(key, estimate(part.set_index("photo_id")["value"]), provenance)
        for key, part in everything.groupby(["arm", "seed", "metric", "slice"], sort=False)
    ]
    order = {name: i for i, name in enumerate([*REFERENCES, *params.compare.arms])}
    table = pd.DataFrame(lines, columns=list(COLUMNS)).round(DECIMALS).replace({-0.0: 0.0})
    return table.sort_values("arm", key=lambda names: names.map(order), kind="stable").reset_index(drop=True)


def best_peer(table: pd.DataFrame, params: Params, metric: str = "psnr", part: str = "all") -> str | None:
    """The pooled peer with the highest `metric` in a slice of the long table; None where there is no peer."""
    chosen = table[(table["metric"] == metric) & (table["slice"] == part) & (table["seed"] == "all")]
    return _best(chosen.set_index("arm")["mean"], params)


def _best(means: pd.Series, params: Params) -> str | None:
    peers = [name for name, arm in params.compare.arms.items() if arm.network != "diffretouch" and arm.experts == "all"]
    known = means[means.index.isin(peers)]
    return None if known.empty else str(known.idxmax())


def _others(over_seeds: pd.DataFrame, params: Params) -> list[tuple[str, str, dict[str, str | None]]]:
    """Every difference: its measure, its name, and by slice the arm that is subtracted."""
    judged = params.compare.judged
    means = over_seeds.groupby(["metric", "slice", "arm"], as_index=False)["value"].mean()
    parts = means["slice"].unique()

    def best(metric: str, part: str) -> str | None:
        chosen = means[(means["metric"] == metric) & (means["slice"] == part)]
        return _best(chosen.set_index("arm")["value"], params)

    return [
        ("psnr", "psnr_minus_mean_expert", dict.fromkeys(parts, "mean_expert")),
        ("psnr", f"psnr_minus_{BEST}", dict.fromkeys(parts, best("psnr", "all"))),
        ("psnr_best_of", f"psnr_best_of_minus_{BEST}", {part: best("psnr_best_of", part) for part in parts}),
        ("psnr", f"psnr_minus_{judged}", dict.fromkeys(parts, judged)),
        ("texture", f"texture_minus_{judged}", dict.fromkeys(parts, judged)),
    ]


def _differences(
    values: pd.DataFrame, over_seeds: pd.DataFrame, others: Sequence[tuple[str, str, dict[str, str | None]]]
) -> pd.DataFrame:
    """`values` minus those of other arms (means over their seeds), photo by photo."""
    found = []
    for metric, name, subtracted in others:
        own = values[(values["metric"] == metric) & ~values["arm"].isin(REFERENCES)]
        reference = over_seeds[over_seeds["metric"] == metric]
        reference = reference[reference["arm"] == reference["slice"].map(subtracted)]
        both = own.merge(
            reference[["photo_id", "slice", "arm", "value"]], on=["photo_id", "slice"], suffixes=("", "_other")
        )
        both = both[both["arm"] != both["arm_other"]]
        found.append(both.assign(metric=name, value=both["value"] - both["value_other"])[own.columns])
    return pd.concat(found, ignore_index=True)


def _line(key: Sequence[str], found: Interval, provenance: str) -> dict[str, object]:
    return dict(zip(("arm", "seed", "metric", "slice"), key, strict=True)) | asdict(found) | {"provenance": provenance}


def small(table: pd.DataFrame) -> pd.DataFrame:
    """What people read: every mean over seeds, and each seed's main measures over all experts or attributes."""
    pairs = table["slice"].str.contains("->")
    by_seed = table["metric"].isin(SHOWN_BY_SEED) & ((table["slice"] == "all") | table["slice"].isin(ATTRIBUTES))
    return table[((table["seed"] == "all") & ~pairs) | by_seed].reset_index(drop=True)


class Numbers:
    """The long table, asked for one number at a time."""

    def __init__(self, table: pd.DataFrame) -> None:
        keys = zip(table["arm"], table["metric"], table["slice"], table["seed"], strict=True)
        values = table[["mean", "low", "high", "n", "groups"]].itertuples(index=False)
        self._found = {key: Interval(*value) for key, value in zip(keys, values, strict=True)}

    def get(self, arm: str, metric: str, part: str = "all", seed: str = "all") -> Interval | None:
        """One number; None where it was not measured."""
        return self._found.get((arm, metric, part, seed))

    def parts(self, arm: str, metric: str, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, Interval]:
        """Of one arm and measure, by slice."""
        return {
            part: found
            for (name, which, part, seed), found in self._found.items()
            if (name, which, seed) == (arm, metric, "all") and wanted(part)
        }

    def seeds(self, arm: str, metric: str, part: str = "all") -> list[float]:
        """The means of every seed."""
        return [
            found.mean
            for (name, which, where, seed), found in self._found.items()
            if (name, which, where) == (arm, metric, part) and seed != "all"
        ]
