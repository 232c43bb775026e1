"""Slots of a server's concurrency limits, by leases that are renewed for as long as their holder lives.

Not by Prefect's `concurrency` block: there, slots that cannot be given back fail what held them, be it after days of
training; one lease that has run out, with the server away for a minute, leaves the holder without slots for good; and
requests are abandoned that a slow server still grants, to nobody.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import ParamSpec, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

P = ParamSpec("P")
T = TypeVar("T")
LEASE_S = 60
"""The shortest that Prefect gives."""
RENEW_S = 15
BUSY_S = 5
GIVE_BACK_S = 10
"""How long the end of a stage waits for a server that does not answer."""


class NotFreeError(Exception):
    """Slots are not to be had now; the message goes on from "waiting for NAME"."""


@contextmanager
def leased(name: str, count: int, default: int, say: Callable[[str], None]) -> Iterator[None]:
    """Hold `count` slots of the server's limit, or all it has; made with `default` slots where it is missing.

    A lease that the server has let go meanwhile is taken again as soon as that is possible. Whatever happens to it, the
    holder goes on.

    Raises:
        NotFreeError: others hold them, or the limit has none.
        httpx.HTTPError: the server does not answer as it should.
    """
    done = threading.Event()
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        with get_client(sync_client=True) as client:
            first = _taken(client, name, count, default)
        context = contextvars.copy_context()
    keeper = threading.Thread(target=context.run, args=(_keep, first, name, count, default, done, say), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join(GIVE_BACK_S)


def _taken(client: SyncPrefectClient, name: str, count: int, default: int) -> UUID:
    """A new lease."""
    there = _slots(client, name, default)
    if there == 0:
        raise NotFreeError(f", which has no slots: `prefect gcl update {name} --limit N` gives it some")
    try:
        take = client.increment_concurrency_slots_with_lease
        answer = _patiently(take, [name], min(count, there), "concurrency", LEASE_S).json()
    except httpx.HTTPStatusError as error:
        # the second: somebody has changed the limit between these two requests
        if error.response.status_code in (HTTPStatus.LOCKED, HTTPStatus.UNPROCESSABLE_ENTITY):
            raise NotFreeError(", which other stages hold") from error
        raise
    lease = UUID(answer["lease_id"])
    if not answer["limits"]:
        _patiently(client.release_concurrency_slots_with_lease, lease)
        raise NotFreeError(", which somebody has removed")
    return lease


def _slots(client: SyncPrefectClient, name: str, default: int) -> int:
    """How many the limit has."""
    try:
        return _patiently(client.read_global_concurrency_limit_by_name, name).limit
    except ObjectNotFound:
        try:
            _patiently(client.create_global_concurrency_limit, GlobalConcurrencyLimitCreate(name=name, limit=default))
        except ObjectAlreadyExists:
            return _slots(client, name, default)  # another chain was faster
    return default


def _keep(first: UUID, name: str, count: int, default: int, done: threading.Event, say: Callable[[str], None]) -> None:
    """Renew the lease until it is done, and give it back."""
    lease: UUID | None = first
    with get_client(sync_client=True) as client:
        while not done.wait(RENEW_S):
            try:
                if lease is None:
                    lease = _taken(client, name, count, default)
                    say(f"{name} is held again")
                else:
                    _patiently(client.renew_concurrency_lease, lease, LEASE_S)
            except NotFreeError:
                continue
            except httpx.HTTPError as error:
                # any other is asked again: a lease outlives three that are lost
                if _status(error) in (HTTPStatus.GONE, HTTPStatus.NOT_FOUND):
                    lease = None
                    say(f"the server has let {name} go, which this stage goes on to use; it is taken again when free")
        if lease is not None:
            try:
                _patiently(client.release_concurrency_slots_with_lease, lease)
            except httpx.HTTPError as error:
                say(f"{name} could not be given back, and is free when its lease has run out: {error}")


def _patiently(request: Callable[P, T], *words: P.args, **named: P.kwargs) -> T:
    """What the server answers when it is not busy.

    One with SQLite says so at once where two write at the same moment; Prefect's client would ask again after 2 s.
    """
    end = time.monotonic() + BUSY_S
    while True:
        try:
            return request(*words, **named)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > end:
                raise
        time.sleep(0.1)


def _status(error: httpx.HTTPError) -> int | None:
    return error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
