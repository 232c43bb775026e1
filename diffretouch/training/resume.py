"""Resumable states in work/.resume, outside every DVC output: whole files with a fingerprint of what made them."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from diffretouch.files.atomic import whole


def fingerprint(parts: dict[str, Any]) -> dict[str, str]:
    """Parts of a run to digests: a state is taken up only when every one agrees."""
    return {name: hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest() for name, part in parts.items()}


def save_state(path: Path, marks: dict[str, str], state: dict[str, Any]) -> None:
    """Replace the state at `path`, whole."""
    # through memory: torch.save tells a full disk from a RuntimeError without the file's name
    file = io.BytesIO()
    torch.save({"fingerprint": marks, **state}, file)
    with whole(path) as temporary:
        temporary.write_bytes(file.getbuffer())


def load_state(path: Path, marks: dict[str, str]) -> dict[str, Any] | None:
    """The state at `path`, or None when there is none or it was made by another configuration (said on stderr)."""
    if not path.exists():
        return None
    state = torch.load(path, weights_only=True)
    differing = [name for name, mark in marks.items() if state["fingerprint"].get(name) != mark]
    if differing:
        print(f"{path} was made with other {', '.join(differing)}: starting anew", file=sys.stderr)
        return None
    return state


class Stopped(SystemExit):
    """Training was asked to stop and has saved its state; exits 143 for SIGTERM, 130 for Ctrl-C, never 0."""


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """While inside, SIGTERM and Ctrl-C are put into the list given, for the loop to act on between two steps."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
