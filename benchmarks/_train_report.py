"""The figures of benchmarks.train as Markdown tables."""

from __future__ import annotations

from typing import Any

KINDS = ("seconds a step", "CPU seconds a step")
COLUMNS = (
    "way",
    "seconds a step",
    "CPU seconds",
    "seconds / ours",
    "CPU / ours",
    "ground truths/s",
    "model TFLOP/s",
    "utilisation",
    "GiB",
)
TITLES = {"with": "With L_cl", "without": "Without L_cl"}
# dense bf16 products, accumulated in fp32, FLOP/s, by what the device calls itself (NVIDIA's data sheets)
RATES = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
}


def report(results: dict[str, Any]) -> str:
    """Markdown: a table a part, a line a way."""
    lines = ["# Training beside a plain eager loop", ""]
    lines += ["What the ways are and how the figures are taken stands in benchmarks/train.py."]
    for part, title in TITLES.items():
        if part in results:
            lines += ["", f"## {title}", "", beside(results[part]["facts"]), "", *table(results[part])]
    return "\n".join(lines) + "\n"


def beside(fact: dict[str, Any]) -> str:
    """The facts of a part in one line."""
    versions = ", ".join(f"{name} {number}" for name, number in fact["versions"].items())
    threads = f"{fact['threads']} thread{'s' if fact['threads'] > 1 else ''}"
    return (
        f"{fact['date']}, {fact['device']}, {threads}, {versions}; {fact['parameters']:,} parameters, "
        f"{fact['network_size']} x {fact['network_size']}, L_cl {fact['control_loss']}, {fact['precision']}, "
        f"{fact['batch']} ground truths a step of {fact['model GFLOP a ground truth']:,} model GFLOP each; load "
        f"average {fact['load average before']} before, {fact['load average after']} after."
    )


def table(part: dict[str, Any]) -> list[str]:
    """Markdown lines."""
    fact, ways = part["facts"], part["ways"]
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for name, found in ways.items():
        a_second = fact["batch"] / found["seconds a step"]
        flops = a_second * fact["model GFLOP a ground truth"] * 1e9
        used = utilisation(flops, fact["device"], "fp32" if "fp32" in name else fact["precision"])
        cells = [name, *(f"{found[kind]:.3f}" for kind in KINDS)]
        cells += [f"{found[f'{kind}, over'].get('ours', 1.0):.2f}" for kind in KINDS]
        cells += [f"{a_second:.2f}", f"{flops / 1e12:.3g}", "" if used is None else f"{used:.1%}"]
        lines += [f"| {' | '.join(cells)} | {found['GiB']:.1f} |"]
    return lines


def utilisation(flops: float, device: str, precision: str) -> float | None:
    """Share of the device's published rate; None in fp32, and where the device is not in the table."""
    rate = next((rate for name, rate in RATES.items() if name in device), None)
    return None if rate is None or precision != "bf16" else flops / rate
