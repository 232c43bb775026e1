"""The look of every drawn figure: a dark neutral grey, as photographs are judged on, and bytes that never change.

Used by every stage that draws; the report's page has the same colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from diffretouch.files.atomic import whole

PAPER, INK, FAINT, GRID, AMBER = "#242424", "#dcdad5", "#97948d", "#3a3a39", "#e8a53c"
CYCLE = ("#e8a53c", "#6fa8c9", "#d3694f", "#8fb573", "#b48ac2", "#c9c2b2", "#5bb5a2")
"""Seven hues of like lightness that stay apart for colour-blind eyes when lines are few; amber is always ours."""

STYLE: Any = {
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.edgecolor": GRID,
    "axes.labelcolor": FAINT,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=CYCLE),
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "font.family": "DejaVu Sans",
    "svg.hashsalt": "diffretouch",
}


def style() -> AbstractContextManager[Any]:
    """A context in which figures take this look."""
    return plt.rc_context(STYLE)


def expert_colours(experts: Sequence[str]) -> dict[str, str]:
    """A hue for each expert, none of them amber, which is ours."""
    return {expert: CYCLE[1 + k % (len(CYCLE) - 1)] for k, expert in enumerate(experts)}


def save(figure: Figure, path: Path, dpi: int = 130) -> None:
    """Write a PNG whole, the same bytes for the same figure, and close it."""
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=dpi, bbox_inches="tight", pad_inches=0.15, metadata={"Software": None})
    plt.close(figure)
