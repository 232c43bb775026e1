"""What a chain leaves on Prefect's pages: its stages, the headline numbers, the way to the report."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from prefect.artifacts import create_markdown_artifact, create_table_artifact

REPORT = Path("reports/index.html")
PAGES = "DIFFRETOUCH_PAGES"
"""Where a web server shows pages of the repository, by their paths in it: https://lab/diffretouch."""


def publish(rows: list[dict[str, Any]], datasets: Iterable[str], root: Path, whose: str = "") -> None:
    """A table of stages; a table of numbers for each dataset that has them; a link to the report if there is one.

    What is `whose` (challenger, champion) has names of its own, and no link: it lies in a clone that goes.
    """
    ending = f"-{key(whose)}" if whose else ""
    create_table_artifact(rows, key=f"stages{ending}", description=f"What became of each stage in {root}")
    for dataset in datasets:
        file = root / "reports" / dataset / "metrics.json"
        if file.is_file():
            words = headlines(dataset, json.loads(file.read_text()), whose)
            create_markdown_artifact(words, key=f"metrics-{key(dataset)}{ending}")
    if not whose and (root / REPORT).is_file():
        link(root / REPORT, root)


def link(page: Path, root: Path) -> None:
    """The way to a report."""
    create_markdown_artifact(way(page, root), key="report", description="The report")


def way(page: Path, root: Path) -> str:
    """A link to a page of the repository `root`, where it is known who shows these.

    Else where it lies, in words: a browser does not open a file from a page that came from a server.
    """
    words = f"On {socket.gethostname()}, in a browser there: {page.as_uri()}"
    if not (shown := os.environ.get(PAGES)):
        return words
    path = quote(page.relative_to(root).as_posix())
    return f"[{path}]({shown.rstrip('/')}/{path})\n\n{words}"


def key(name: str) -> str:
    """A name as Prefect allows one: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def headlines(dataset: str, metrics: dict[str, Any], whose: str = "") -> str:
    """Markdown: a table a split, a line a row and metric, each mean with its interval."""
    lines = [f"# {_cell(dataset)}{f', the {_cell(whose)}' if whose else ''}"]
    for split, rows in metrics.items():
        lines += ["", f"## {_cell(split)}", "", "| row | metric | mean | 95 % interval | n | groups |"]
        lines += ["|---|---|---:|---|---:|---:|"]
        for row, found in rows.items():
            for name, number in found.items():
                span = "" if number.get("low") is None else f"[{number['low']}, {number['high']}]"
                cells = [row, name, number["mean"], span, number.get("n", ""), number.get("groups", "")]
                lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines)


def _cell(value: object) -> str:
    return escape(str(value)).replace("|", "&#124;").replace("\n", " ")


def plain(text: str) -> str:
    """Text without markdown's signs, since names of photos and cameras come from strangers' files."""
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]()<>#+-!|" else sign for sign in text)
