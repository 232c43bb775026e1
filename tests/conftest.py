"""What runs only when asked for, and fixtures of all tests of flows, which import late what they need."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

ALONE = "DIFFRETOUCH_ALONE"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `alone` are skipped without ALONE in the environment."""
    if ALONE not in os.environ:
        for item in items:
            if item.get_closest_marker("alone"):
                item.add_marker(pytest.mark.skip(reason=f"minutes alone on a machine: {ALONE}=1"))


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
