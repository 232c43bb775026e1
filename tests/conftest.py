"""Fixtures of all tests of flows; what they import is imported when they are asked for."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The tests' real Prefect server, in which flows of this process are recorded."""
    from tests import real_server

    with real_server.used() as address:
        yield address


@pytest.fixture
def sigterm() -> Iterator[None]:
    """A command's `main` installs a handler for SIGTERM, which would outlive the test."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
