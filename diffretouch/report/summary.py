"""The tables at the end of `make repro`, from the files in reports/ alone; imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from diffretouch.config import Params
from diffretouch.report.numbers import ROWS, Metrics, interval, signed

NAMES = {"psnr": "PSNR dB", "ssim": "SSIM", "ciede2000": "ΔE 2000", "lpips": "LPIPS"}


def print_summary(params: Params, reports: Path = Path("reports"), console: Console | None = None) -> None:
    """Every dataset's rows, what was won over the two references, and control; last the path of the page."""
    console = console or Console(soft_wrap=True)
    for dataset in params.datasets:
        metrics = Metrics(reports / dataset / "metrics.csv")
        console.print(_rows(dataset, metrics))
        for other in ("input", "mean_expert"):
            won = metrics.get(f"expert_minus_{other}", "psnr")
            if won:
                span = f"[{signed(won.low)}, {signed(won.high)}]"
                console.print(f"  expert − {other}: {signed(won.mean)} dB {span}", markup=False, highlight=False)
        share = metrics.get("expert", "variance_share")
        if share:
            console.print(
                f"  share of the experts' variance that ours, told c, explains: {share.mean:.2f}", highlight=False
            )
        console.print(_control(metrics))
        if metrics.get("expert", "lpips") is None:
            console.print("  LPIPS absent: evaluate.lpips.backbone names no weights.", highlight=False)
        if metrics.provenance == "simulated":
            console.print("  simulated corpus: its experts are made by rules, not by people.", style="yellow")
        console.print()
    console.print(str(reports / "index.html"), highlight=False)


def _rows(dataset: str, metrics: Metrics) -> Table:
    shown = [name for name in NAMES if name in metrics.metrics()]
    table = Table(title=f"{dataset}, test photos", title_justify="left", title_style="bold")
    table.add_column("row")
    for name in shown:
        table.add_column(NAMES[name], justify="right")
    table.add_column("photos", justify="right")
    table.add_column("scenes", justify="right")
    for row in ROWS:
        first = metrics.get(row, "psnr")
        if first:
            cells = [interval(first).replace("[", r"\["), *(_plain(metrics, row, name) for name in shown[1:])]
            table.add_row(row, *cells, str(first.n), str(first.groups), style="bold" if row == "expert" else None)
    return table


def _plain(metrics: Metrics, row: str, name: str) -> str:
    number = metrics.get(row, name)
    return "–" if number is None else f"{number.mean:.3f}" if name in ("ssim", "lpips") else f"{number.mean:.2f}"


def _control(metrics: Metrics) -> Table:
    table = Table(title="control: measured over requested, in half-ranges", title_justify="left", title_style="dim")
    for name in ("attribute", "slope", "Spearman", "photos"):
        table.add_column(name, justify="left" if name == "attribute" else "right")
    for name, slope, rank in metrics.control():
        table.add_row(name, interval(slope).replace("[", r"\["), f"{rank.mean:.2f}" if rank else "–", str(slope.n))
    return table
