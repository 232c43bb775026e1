"""Digests of this package's own source, so that what other code made is never taken for its own."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent


def code_fingerprint(within: Iterable[str] | None = None) -> str:
    """Digest of the files and folders `within` this package, for instance "files/raw.py", or of all loaded modules.

    Of what the code does: comments, docstrings and layout do not count, so that wording them anew costs no training.
    """
    if within is None:
        modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "diffretouch"]
        files = {Path(str(module.__file__)) for module in modules if getattr(module, "__file__", None)}
    else:
        places = [ROOT / name for name in within]
        files = {file for place in places for file in ([place] if place.is_file() else place.rglob("*.py"))}
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(_meaning(file.read_bytes()))
    return digest.hexdigest()


@cache
def _meaning(source: bytes) -> bytes:
    """Digest of the syntax tree without the strings that stand alone."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_words(line)]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).digest()


def _is_words(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)
