"""The page: one offline file, everything inlined and escaped, the same bytes for the same inputs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from diffretouch.attributes import ATTRIBUTES
from diffretouch.report.gather import Dataset
from diffretouch.report.numbers import ROWS, Metrics, interval, signed

SHORT = ("col", "bri", "con", "tmp")
METRIC_NAMES = {
    "psnr": "PSNR, dB ↑",
    "ssim": "SSIM ↑",
    "ciede2000": "ΔE 2000 ↓",
    "lpips": "LPIPS ↓",
    "psnr_hc": "PSNR HC, dB ↑",
    "delta_e_hc": "ΔE HC ↓",
    "glc": "GLC ↓",
}


def render(title: str, datasets: Sequence[Dataset]) -> str:
    """HTML of the whole report."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"signed": signed, "interval": interval}
    parts = files("diffretouch.report")
    return environment.from_string((parts / "page.html").read_text(encoding="utf-8")).render(
        title=title,
        datasets=datasets,
        rulers={d.name: ruler(d.metrics) for d in datasets},
        rows=ROWS,
        attributes=ATTRIBUTES,
        short=SHORT,
        metric_names=METRIC_NAMES,
        css=(parts / "page.css").read_text(encoding="utf-8"),
        js=(parts / "page.js").read_text(encoding="utf-8"),
    )


def ruler(metrics: Metrics) -> Markup:
    """A scale of PSNR as SVG: doing nothing, c = 0, the experts' average and our results, with their intervals."""
    marks = [("input", "input"), ("neutral", "c = 0"), ("mean_expert", "experts’ average"), ("expert", "ours")]
    known = [(words, number) for row, words in marks if (number := metrics.get(row, "psnr"))]
    low = min(number.low for _, number in known) - 0.5
    high = max(number.high for _, number in known) + 0.5

    def place(value: float) -> float:
        return round(165 + 345 * (value - low) / (high - low), 1)

    lines = []
    for k, (words, number) in enumerate(known):
        y, colour = 14 + 22 * k, "#e8a53c" if words in ("ours", "c = 0") else "#97948d"
        left, right, at = place(number.low), place(number.high), place(number.mean)
        lines.append(
            f'<line x1="165" x2="510" y1="{y}" y2="{y}" stroke="#3a3a39"/>'
            f'<line x1="{left}" x2="{right}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="6" opacity=".4"/>'
            f'<circle cx="{at}" cy="{y}" r="4.5" fill="{colour}"/><text x="0" y="{y + 4}">{words}</text>'
            f'<text class="strong" x="122" y="{y + 4}">{number.mean:.1f}</text>'
        )
    height = 22 * len(known) + 8
    return Markup(f'<svg class="ruler" viewBox="0 0 520 {height}" role="img" aria-label="PSNR">{"".join(lines)}</svg>')
