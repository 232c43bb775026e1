"""report: one offline page over all datasets."""

from __future__ import annotations

from pathlib import Path

import torch

from diffretouch.config import Params
from diffretouch.files.atomic import write_text
from diffretouch.progress import track
from diffretouch.report.gather import gather
from diffretouch.report.page import render

PAGE = Path("reports/index.html")


def run(params: Params) -> None:
    """Outputs of all stages and datasets -> reports/index.html."""
    torch.set_num_threads(1)
    datasets = [gather(name, params.report) for name in track(params.datasets, "report", len(params.datasets))]
    write_text(PAGE, render(params.report.title, datasets))
