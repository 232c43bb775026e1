"""Slots of a server's concurrency limits, by leases that are renewed for as long as their holder lives.

Not by Prefect's `concurrency` block: there, slots that cannot be given back fail what held them, be it after days of
training; one lease that has run out, with the server away for a minute, leaves the holder without slots for good; and
requests are abandoned that a slow server still grants, to nobody.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

T = TypeVar("T")
LEASE_S = 60
"""The shortest that Prefect gives."""
RENEW_S, ANSWER_S = 10, 10
"""So two renewals may be lost, each for as long as the server is waited for."""
BUSY_S = 5
GIVE_BACK_S = 10
"""How long the end of a stage waits, for each limit, for a server that does not answer; it is waited for beside others
until the lease has run out.
"""


class NotFreeError(Exception):
    """Slots are not to be had now; the message goes on from "waiting for NAME"."""


@dataclass(frozen=True)
class Wanted:
    """Slots of one limit."""

    name: str
    count: int
    default: int
    """How many the limit is made with where it is missing."""
    notes: Path | None = None
    """A folder that has a file named after each lease, for who comes after this process has been killed."""


@contextmanager
def leased(wanted: Wanted, say: Callable[[str], None]) -> Iterator[None]:
    """Hold so many slots of the server's limit, or all it has.

    A lease that the server has let go meanwhile is taken again as soon as that is possible. Whatever happens to it, the
    holder goes on.

    Raises:
        NotFreeError: others hold them, or the limit has none.
        httpx.HTTPError: the server does not answer as it should.
    """
    done = threading.Event()
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        with _client() as client:
            first = _taken(client, wanted)
        context = contextvars.copy_context()
    keeper = threading.Thread(target=context.run, args=(_keep, first, wanted, done, say), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join(GIVE_BACK_S)


def give_back(notes: Path, say: Callable[[str], None]) -> None:
    """Give back what killed holders have left, by their notes, once nothing uses it any more.

    What cannot be given back is free when its lease has run out, and what has run out already is nothing to the server.
    """
    left = sorted(notes.glob("????????-????-????-????-????????????"))
    if not left:
        return
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), _client() as client:
        for note in left:
            try:
                _release(client, UUID(note.name))
            except httpx.HTTPError as error:
                say(f"slots of an earlier, killed run are free when their lease has run out, and not before: {error}")
                if isinstance(error, httpx.ConnectError):
                    return  # nothing was sent
            note.unlink(missing_ok=True)


def _client(answer_s: float = ANSWER_S) -> SyncPrefectClient:
    """One of our own, and not what a task's context shares; that one waits for a minute, and 2 s after each 503."""
    return get_client(
        sync_client=True, httpx_settings={"timeout": answer_s, "event_hooks": {"response": [_refuse_busy]}}
    )


def _refuse_busy(response: httpx.Response) -> None:
    """Raise for a 503 here, before Prefect's client sleeps."""
    if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
        response.read()
        response.raise_for_status()


def _taken(client: SyncPrefectClient, wanted: Wanted) -> UUID:
    """A new lease, noted."""
    name, there = wanted.name, _slots(client, wanted)
    if there == 0:
        raise NotFreeError(f", which has no slots: `prefect gcl update {name} --limit N` gives it some")
    take = client.increment_concurrency_slots_with_lease
    try:
        answer = _answer(lambda: take([name], min(wanted.count, there), "concurrency", LEASE_S).json())
    except httpx.HTTPStatusError as error:
        # the second: somebody has changed the limit between these two requests
        if error.response.status_code in (HTTPStatus.LOCKED, HTTPStatus.UNPROCESSABLE_ENTITY):
            raise NotFreeError(", which other stages hold") from error
        raise
    lease = UUID(answer["lease_id"])
    if not answer["limits"]:
        _release(client, lease)
        raise NotFreeError(", which somebody has removed")
    if wanted.notes:
        with contextlib.suppress(OSError):  # of a full disk the stage tells
            wanted.notes.mkdir(parents=True, exist_ok=True)
            (wanted.notes / str(lease)).touch()
    return lease


def _release(client: SyncPrefectClient, lease: UUID) -> None:
    _answer(lambda: client.release_concurrency_slots_with_lease(lease))


def _forget(lease: UUID, wanted: Wanted) -> None:
    """Its note."""
    if wanted.notes:
        (wanted.notes / str(lease)).unlink(missing_ok=True)


def _slots(client: SyncPrefectClient, wanted: Wanted) -> int:
    """How many the limit has."""
    try:
        return _answer(lambda: client.read_global_concurrency_limit_by_name(wanted.name)).limit
    except ObjectNotFound:
        limit = GlobalConcurrencyLimitCreate(name=wanted.name, limit=wanted.default)
        try:
            _answer(lambda: client.create_global_concurrency_limit(limit))
        except ObjectAlreadyExists:
            return _slots(client, wanted)  # another chain was faster
    return wanted.default


def _keep(first: UUID, wanted: Wanted, done: threading.Event, say: Callable[[str], None]) -> None:
    """Renew the lease until it is done, and give it back."""
    lease: UUID | None = first
    name = wanted.name
    with _client() as client:
        while not done.wait(RENEW_S):
            if lease is None:
                try:
                    lease = _taken(client, wanted)
                    say(f"{name} is held again")
                except (NotFreeError, httpx.HTTPError):
                    pass  # asked again
            elif _is_gone(client, lease):
                _forget(lease, wanted)
                lease = None
                say(f"the server has let {name} go, which this stage goes on to use; it is taken again when free")
    if lease is not None:
        _return(lease, wanted, say)


def _return(lease: UUID, wanted: Wanted, say: Callable[[str], None]) -> None:
    """Give it back, if need be to a server that answers late: sent twice, it could free what is somebody else's."""
    end = time.monotonic() + LEASE_S
    _forget(lease, wanted)
    with _client(LEASE_S) as client:
        while True:
            try:
                _release(client, lease)
            except httpx.HTTPError as error:
                if isinstance(error, httpx.ConnectError) and time.monotonic() < end:
                    time.sleep(1)  # it has not been sent
                    continue
                say(f"{wanted.name} could not be given back, and is free when its lease has run out: {error}")
            return


def _is_gone(client: SyncPrefectClient, lease: UUID) -> bool:
    """Whether the server knows the lease no more, which is renewed otherwise, or asked for again the next time."""
    try:
        _answer(lambda: client.renew_concurrency_lease(lease, LEASE_S))
    except httpx.HTTPStatusError as error:
        return error.response.status_code == HTTPStatus.GONE
    except httpx.HTTPError:
        pass
    return False


def _answer(request: Callable[[], T]) -> T:
    """What the server says when it is not busy: one with SQLite refuses at once where two write at the same moment.

    httpx.HTTPError where it says nothing of the kind, be it a page of a proxy's.
    """
    end = time.monotonic() + BUSY_S
    while True:
        try:
            return request()
        except httpx.HTTPStatusError as error:
            if error.response.status_code != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > end:
                raise
        except ValueError as error:
            raise httpx.DecodingError(f"not an answer of Prefect's: {error}") from error
        time.sleep(0.1)
