"""The evaluation's figures: PSNR of every row, and what the sliders do."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from diffretouch.attributes import ATTRIBUTES
from diffretouch.evaluation.summary import ROWS
from diffretouch.files.figures import AMBER, FAINT, GRID, INK, style

_OURS = ("expert", "neutral", "random_0_1", "random_1_2", "random_2_3")


def psnr(table: pd.DataFrame, experts: Sequence[str], *, title: str, confidence: float) -> Figure:
    """Left: PSNR of every row with its interval. Right: three of them for each expert."""
    chosen = table[table["metric"] == "psnr"]
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), width_ratios=(1.15, 1))
        rows = [name for name in ROWS if (chosen["row"] == name).any()]
        for place, name in enumerate(reversed(rows)):
            line = chosen[(chosen["row"] == name) & (chosen["slice"] == "all")].iloc[0]
            colour = AMBER if name in _OURS else FAINT
            left.hlines(place, line["low"], line["high"], color=colour, lw=5, alpha=0.35)
            left.plot(line["mean"], place, "o", color=colour, ms=6)
            words = f"{line['mean']:.2f}"
            left.annotate(words, (line["mean"], place), (0, 7), textcoords="offset points", ha="center", fontsize=8)
        left.set_yticks(range(len(rows)), list(reversed(rows)))
        left.set_ylim(-0.6, len(rows) - 0.2)
        left.set(title=title, xlabel=f"PSNR to the experts, dB (bar: {confidence:.0%} interval over scenes)")
        _by_expert(right, chosen, experts)
        figure.tight_layout()
    return figure


def _by_expert(axes: plt.Axes, chosen: pd.DataFrame, experts: Sequence[str]) -> None:
    marks = {"input": ("v", FAINT), "mean_expert": ("s", INK), "expert": ("o", AMBER)}
    for shift, (name, (mark, colour)) in enumerate(marks.items()):
        part = chosen[chosen["row"] == name].set_index("slice")
        at = [place + 0.16 * (shift - 1) for place, x in enumerate(experts) if f"expert_{x}" in part.index]
        own = part.loc[[f"expert_{x}" for x in experts if f"expert_{x}" in part.index]]
        axes.vlines(at, own["low"], own["high"], color=colour, lw=4, alpha=0.3)
        axes.plot(at, own["mean"], mark, color=colour, ms=5.5, label=name)
    axes.set_xticks(range(len(experts)), [f"expert {x}" for x in experts])
    axes.set(title="by expert", ylabel="PSNR, dB")
    axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, -0.32), handletextpad=0.2)


def control(responses: pd.DataFrame, lines: pd.DataFrame, *, title: str) -> Figure:
    """One panel an attribute: requested c against the measured attribute, in half-ranges of each photo's experts."""
    slope = lines[(lines["row"] == "control") & (lines["metric"] == "slope")].set_index("slice")
    with style():
        figure, panels = plt.subplots(1, len(ATTRIBUTES), figsize=(2.9 * len(ATTRIBUTES), 3.1), sharey=True)
        for axes, name in zip(panels, ATTRIBUTES, strict=True):
            own = responses[(responses["moved"] == name) & (responses["attribute"] == name)]
            axes.plot([-1, 1], [-1, 1], color=GRID, lw=1.2, ls=(0, (4, 3)))
            for _, photo in own.groupby("photo_id"):
                ordered = photo.sort_values("c")
                axes.plot(ordered["c"], ordered["response"], color=FAINT, lw=0.7, alpha=0.55)
            mean = own.groupby("c")["response"].mean()
            axes.plot(mean.index, mean, color=AMBER, lw=2.6, marker="o", ms=4)
            note = f"slope {slope.loc[name, 'mean']:.2f}" if name in slope.index else "experts agree: no slope"
            axes.set(title=f"{name}\n{note}", xlabel="requested c", xlim=(-1.08, 1.08), ylim=(-2, 2))
        panels[0].set_ylabel("measured, in half-ranges")
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=FAINT)
        figure.tight_layout()
    return figure
