"""The figures of benchmarks.dvc_size as Markdown tables."""

from __future__ import annotations

from typing import Any

from benchmarks._dvc_corpora import FILES

PPR10K_FILES = 176_072
TITLES = {
    "links": "Link types: data/ of hard links to one's own files",
    "everyday": "Everyday commands: data/ under one data.dvc",
    "remotes": "A remote that is a folder; one dataset pulled of two",
    "bytes": "Files of a real picture's size",
    "forms": "Forms of decode's output, 6 pictures a photo",
}


def report(results: dict[str, Any]) -> str:
    """Markdown: a table a part, a line a command or question, a column a case."""
    lines = ["# DVC at the size of a laboratory's corpora", ""]
    lines += [
        "Seconds of wall time, in brackets CPU seconds. Commands that change nothing: the median of 3, others once."
    ]
    lines += [
        "Small files of 4 to 40 KB, pictures of 40 KB, all in the page cache: DVC's price by the file, not by the byte."
    ]
    for part, title in TITLES.items():
        if part in results:
            columns = results[part]["cases"]
            if part == "everyday" and len(columns) == 2:
                columns = columns | {f"{PPR10K_FILES:,} files, extrapolated": extrapolated(*columns.values())}
            lines += ["", f"## {title}", "", beside(results[part]), "", *table(columns)]
    return "\n".join(lines) + "\n"


def beside(part: dict[str, Any]) -> str:
    """The facts of a part in one line, with the mean of what other processes took of the machine meanwhile."""
    fact = part["facts"]
    took = [cell for case in part["cases"].values() for cell in case.values() if isinstance(cell, dict)]
    seconds = sum(cell["seconds"] for cell in took)
    others = sum(cell["other_cores"] * cell["seconds"] for cell in took) / seconds
    return (
        f"{fact['date']}, {fact['machine']}, {fact['file system']}, dvc {fact['versions']['dvc']}; load average before"
        f" {fact['load average before']:.1f}, other processes kept {others:.1f} cores busy meanwhile;"
        f" largest process {max(cell['peak_mib'] for cell in took):.0f} MiB."
    )


def extrapolated(small: dict[str, Any], large: dict[str, Any]) -> dict[str, Any]:
    """CPU seconds and sizes for PPR10K's files, on the straight line through two measured cases.

    Wall seconds are left out: what else the machine did meanwhile would be multiplied too.
    """
    share = (PPR10K_FILES - small[FILES]) / (large[FILES] - small[FILES])
    found: dict[str, Any] = {}
    for what, cell in small.items():
        low, high = (c["cpu_seconds"] if isinstance(c, dict) else c for c in (cell, large[what]))
        figure = low + share * (high - low)
        found[what] = f"({figure:.1f})" if isinstance(cell, dict) else figure
    return found | {FILES: PPR10K_FILES}


def table(columns: dict[str, dict[str, Any]]) -> list[str]:
    """Markdown lines: the rows of the first case, a column a case."""
    lines = ["| what | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for what in next(iter(columns.values())):
        cells = [shown(case.get(what, "")) for case in columns.values()]
        lines += [f"| {what} | {' | '.join(cells)} |"]
    return lines


def shown(cell: Any) -> str:
    """A cost as seconds and CPU seconds, a number to three digits or as it is, words as they are."""
    if isinstance(cell, dict):
        return f"{cell['seconds']:.1f} ({cell['cpu_seconds']:.1f})"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.2f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
