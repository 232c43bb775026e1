"""What the README says of 50,000 photos is what the committed measurements give."""

from __future__ import annotations

from pathlib import Path

from benchmarks import scale
from diffretouch.config import load

ROOT = Path(__file__).resolve().parent.parent


def test_the_readmes_table_is_computed() -> None:
    size = scale.Size(load(ROOT / "profiles/fivek.yaml"), 50_000, 64, None, None)
    rows = {f"| {' | '.join(line)} |" for line in scale.lines(scale.read_rates(), size)}
    assert len(rows) == 9
    assert rows <= set((ROOT / "README.md").read_text().splitlines())
    assert rows <= set(scale.OUT.read_text().splitlines())
