"""The numbers of `metrics.csv` and `tsne.csv` as the page and the shell show them; needs neither torch nor pandas."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from diffretouch.errors import UserError

ROWS = {
    "input": "nothing done",
    "mean_expert": "average of the experts",
    "expert": "ours, told each expert's c (oracle)",
    "neutral": "ours, c = 0",
    "random_0_1": "ours, random |c| in [0,1]",
    "random_1_2": "ours, random |c| in (1,2]",
    "random_2_3": "ours, random |c| in (2,3]",
}
"""Rows of the tables in order, in plain words."""


@dataclass(frozen=True)
class Number:
    """A mean with its interval; a number that has none carries NaN there."""

    mean: float
    low: float
    high: float
    n: int
    groups: int


class Metrics:
    """`metrics.csv` of one dataset, one split."""

    def __init__(self, path: Path, split: str = "test") -> None:
        if not path.exists():
            raise UserError(f"{path} not found: run `dvc repro evaluate@{path.parent.name}`")
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.DictReader(file) if line["split"] == split]
        self.provenance = lines[0]["provenance"] if lines else "unknown"
        self._numbers = {
            (line["row"], line["slice"], line["metric"]): Number(
                float(line["mean"]), _or_nan(line["low"]), _or_nan(line["high"]), int(line["n"]), int(line["groups"])
            )
            for line in lines
        }

    def get(self, row: str, metric: str, part: str = "all") -> Number | None:
        """One number, None where it was not measured."""
        return self._numbers.get((row, part, metric))

    def metrics(self, rows: Iterable[str] = ROWS) -> list[str]:
        """Names of the metrics that any of `rows` has over all experts, in the file's order, best-of-N left out."""
        wanted = set(rows)
        names = [m for row, part, m in self._numbers if row in wanted and part == "all" and "share" not in m]
        return [name for name in dict.fromkeys(names) if not name.startswith("psnr_best_of")]

    def control(self) -> list[tuple[str, Number, Number | None]]:
        """(attribute, slope, Spearman) of every slider, in the file's order; those the experts agree on are absent."""
        slopes = {part: n for (row, part, metric), n in self._numbers.items() if (row, metric) == ("control", "slope")}
        return [(name, n, self.get("control", "spearman", name)) for name, n in slopes.items() if name != "all"]

    def best_of(self, row: str) -> tuple[int, Number] | None:
        """(N, PSNR of the best of N draws) of a random row."""
        for (name, _, metric), number in self._numbers.items():
            if name == row and metric.startswith("psnr_best_of_"):
                return int(metric.rsplit("_", 1)[1]), number
        return None


def _or_nan(text: str) -> float:
    return float(text) if text else math.nan


@dataclass(frozen=True)
class Company:
    """Whom the pictures of one kind lie next to in style space."""

    kind: str
    share: float
    """Of them whose nearest neighbour among ground truths and inputs is a ground truth."""
    distance: float
    """Median distance to the nearest ground truth, over that of the ground truths among themselves."""
    n: int


def company(path: Path) -> list[Company]:
    """Of the random ranges in tsne.csv."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    usual = median(float(line["distance"]) for line in lines if line["kind"] == "ground_truth") or 1.0
    found = []
    for kind in (name for name in ROWS if name.startswith("random")):
        own = [line for line in lines if line["kind"] == kind]
        if own:
            share = sum(line["nearest"] == "ground_truth" for line in own) / len(own)
            found.append(Company(kind, share, median(float(line["distance"]) for line in own) / usual, len(own)))
    return found


def interval(number: Number | None, digits: int = 2) -> str:
    """`23.41 [22.80, 24.02]`, `23.41` for a number without an interval, or a dash."""
    if number is None:
        return "–"
    if math.isnan(number.low) or math.isnan(number.high):
        return f"{number.mean:.{digits}f}"
    return f"{number.mean:.{digits}f} [{number.low:.{digits}f}, {number.high:.{digits}f}]"


def signed(value: float, digits: int = 2) -> str:
    """With a sign, and a true minus; a dash for NaN."""
    if math.isnan(value):
        return "–"
    text = f"{value:+.{digits}f}"
    return ("+" if float(text) == 0 else text[0]).replace("-", "−") + text[1:]
