"""Digests of this package's own source, so that what other code made is never taken for its own."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent


def code_fingerprint(within: Iterable[str] | None = None) -> str:
    """Digest of the files and folders `within` this package, for instance "files/raw.py", or of all loaded modules."""
    if within is None:
        modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "diffretouch"]
        files = {Path(str(module.__file__)) for module in modules if getattr(module, "__file__", None)}
    else:
        places = [ROOT / name for name in within]
        files = {file for place in places for file in ([place] if place.is_file() else place.rglob("*.py"))}
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()
