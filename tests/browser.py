"""A real browser without a window, for pages that must work from a file and without a network."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium here: `apt-get install chromium`")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # any host at all is unknown: a page that needs one shows it
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--virtual-time-budget=4000",
)


def _run(profile: Path, *more: str) -> str:
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={profile}", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def dom(page: Path, profile: Path, script: str = "") -> str:
    """The document after its scripts ran, and after `script`, appended to a copy of the page beside it."""
    shown = page
    if script:
        shown = page.with_name(f"probe-{page.name}")
        shown.write_text(page.read_text(encoding="utf-8") + f"<script>{script}</script>", encoding="utf-8")
    try:
        return _run(profile, "--dump-dom", shown.resolve().as_uri())
    finally:
        if script:
            shown.unlink()


def screenshot(page: Path, profile: Path, out: Path, *, width: int, height: int) -> None:
    """A PNG of the top of the page."""
    _run(profile, f"--window-size={width},{height}", f"--screenshot={out}", page.resolve().as_uri())
