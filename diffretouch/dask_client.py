"""A client of a dask scheduler whose workers run what runs here; the one module that needs dask's extra."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from diffretouch.code import code_fingerprint
from diffretouch.errors import UserError

if TYPE_CHECKING:
    from distributed import Client

PATIENCE_S = 30.0
"""Time the scheduler has to answer, and then to have a worker."""
SAME_EVERYWHERE = ("distributed", "exifread", "imagecodecs", "numpy", "pillow", "rawpy", "scipy", "tifffile", "torch")
"""Packages whose version can change a pixel or a manifest's row, or the talk between machines."""


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """A client of a scheduler that answers and has a worker."""
    try:
        from distributed import Client
    except ImportError as error:
        raise UserError(
            "runtime.executor is dask, and dask is not installed: `pip install -c constraints.txt -e '.[dask]'`, or "
            "`executor: process` in params.yaml"
        ) from error
    start = f"start it with `dask scheduler` and, on every machine, `dask worker {address} --nthreads 4`"
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what goes wrong is told here, not as a traceback
    try:
        client = Client(address, timeout=PATIENCE_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"no dask scheduler answers at {address} (runtime.scheduler in params.yaml): {error}; {start}"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE_S)
        except TimeoutError as error:
            raise UserError(
                f"the dask scheduler {address} has no worker: type `dask worker {address} --nthreads 4` on every "
                "machine, then run the same command again"
            ) from error
        yield client


def identity(code: Iterable[str]) -> dict[str, str]:
    """What must be the same everywhere for the same bytes; `code` as in `code_fingerprint`."""
    found = {"python": ".".join(platform.python_version_tuple()[:2]), "processor": platform.machine()}
    for name in SAME_EVERYWHERE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "(not installed)"
    return found | {"diffretouch's code": code_fingerprint(code)[:12]}


def require_same(here: dict[str, str], worker: str, there: dict[str, str] | Exception, address: str) -> None:
    """UserError when `there`, the `identity` of `worker` or why it could not say, is not `here`."""
    if isinstance(there, Exception):
        wrong = f"cannot run this code: {there}"
    else:
        differing = [f"{name} {found} instead of {here[name]}" for name, found in there.items() if found != here[name]]
        if not differing:
            return
        wrong = f"would give other results, it has {', '.join(differing)}"
    raise UserError(
        f"dask worker {worker} {wrong}; install the same there (`pip install -c constraints.txt -e '.[dask]'`), "
        f"then start `dask worker {address} --nthreads 4` there again"
    )
