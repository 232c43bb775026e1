"""Training curves, drawn from the history of the training stage."""

from __future__ import annotations

import io
import json
from pathlib import Path

from matplotlib import pyplot as plt

from diffretouch.files.figures import AMBER, CYCLE, style

# losses spread over decades, other numbers do not
LOSSES = ("loss", "eps", "pixel", "control")


def read_history(path: Path) -> dict[str, list[tuple[float, float]]]:
    """history.jsonl -> curve name -> [(step, value)]; keys that are no numbers are passed over."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        point = json.loads(line)
        for name, value in point.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool) and "step" in point:
                curves.setdefault(name, []).append((float(point["step"]), float(value)))
    return curves


def draw(curves: dict[str, list[tuple[float, float]]], *, title: str) -> bytes:
    """A PNG: the losses on a logarithmic scale, and each other curve in a panel of its own."""
    losses = [name for name in curves if name in LOSSES]
    others = [name for name in curves if name not in LOSSES]
    panels = (["losses"] if losses else []) + others
    across = max(1, min(3, len(panels)))
    down = max(1, -(-len(panels) // across))
    with style():
        figure, axes = plt.subplots(down, across, figsize=(10, 2.7 * down), squeeze=False)
        for name, axis in zip(panels, axes.flat[: len(panels)], strict=True):
            if name == "losses":
                for loss, colour in zip(losses, CYCLE[: len(losses)], strict=True):
                    axis.plot(*zip(*curves[loss], strict=True), color=colour, label=loss, lw=1.3)
                if any(value > 0 for loss in losses for _, value in curves[loss]):
                    axis.set_yscale("log")
                axis.legend(ncols=2)
            else:
                axis.plot(*zip(*curves[name], strict=True), color=AMBER, marker="o", ms=3)
            axis.set(title=name, xlabel="step")
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
        figure.tight_layout()
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=110, metadata={"Software": None})
        plt.close(figure)
    return buffer.getvalue()
