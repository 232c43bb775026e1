"""Digests of this package's own source, so that what other code made is never taken for its own."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent
BELOW = ("attributes.py", "bilateral_grid.py", "color.py", "condition.py", "devices.py", "files", "model", "seeds.py")
"""What whatever is made with a model depends on, beside its own code."""


def code_fingerprint(within: Iterable[str]) -> str:
    """Digest of the files and folders `within` this package, for instance "files/raw.py".

    Of what the code does: comments, docstrings and layout do not count, so that wording them anew costs no training.
    """
    digest = hashlib.sha256()
    for file in _files(within):
        digest.update(_meaning(file.read_bytes()))
    return digest.hexdigest()


def code_marks(within: Iterable[str]) -> dict[str, str]:
    """A digest a file, by its path in the package: where they differ they say what has changed."""
    return {file.relative_to(ROOT).as_posix(): _meaning(file.read_bytes()).hex() for file in _files(within)}


def _files(within: Iterable[str]) -> list[Path]:
    places = [ROOT / name for name in within]
    return sorted({file for place in places for file in ([place] if place.is_file() else place.rglob("*.py"))})


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
