"""What a worker is handed and gives back: one photo, redone only when something it depends on changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diffretouch.corpus.layout import Photo
from diffretouch.decoding.ledger import Digests, Record, Stamp, key_of
from diffretouch.decoding.photo import Settings, decode_photo, quarantined


@dataclass(frozen=True)
class Task:
    """One photo, what is known of its files, and what was made of it before."""

    photo: Photo
    settings: Settings
    settings_digest: str
    known: dict[str, tuple[Stamp, str]]
    before: Record | None


@dataclass(frozen=True)
class Done:
    """What became of a task, with the stamps of every file it read and wrote."""

    photo_id: str
    record: Record
    stamps: dict[str, tuple[Stamp, str]]


def work(task: Task, reserve: Callable[[int], None]) -> Done:
    """Decode the photo unless its files, the settings and the pictures are all as they were."""
    digests = Digests(dict(task.known))
    sources = {role: digests.of(path) for role, path in sources_of(task.photo).items()}
    record = task.before
    if record is None or record.key != key_of(sources, task.settings_digest) or not _whole(record, task, digests):
        try:
            decoded = decode_photo(task.photo, task.settings, reserve)
        except Exception as error:
            error.add_note(f"while decoding {task.photo.photo_id}, the RAW {task.photo.raw}")
            raise
        files = {file: digests.of(task.settings.out / file) for file in sorted(decoded.files)}
        record = Record(key_of(sources, task.settings_digest), decoded.row, files)
    return Done(task.photo.photo_id, record, digests.known)


def lost(task: Task, reason: str) -> Done:
    """The photo whose process died: quarantined without a key, so that the next run tries it again."""
    return Done(task.photo.photo_id, Record("", quarantined(reason, "crashed"), {}), {})


def sources_of(photo: Photo) -> dict[str, Path]:
    """Every file a photo is made of, by its role."""
    more = {"rendered": photo.rendered, "mask": photo.mask}
    experts = {f"expert_{x}": path for x, path in photo.experts.items()}
    return {"raw": photo.raw, **experts, **{role: path for role, path in more.items() if path is not None}}


def up_to_date(photo: Photo, record: Record | None, digests: Digests, settings_digest: str, out: Path) -> bool:
    """Whether stamps alone tell that nothing about the photo changed; opens no file."""
    if record is None:
        return False
    sources = {role: digests.current(path) for role, path in sources_of(photo).items()}
    if any(digest is None for digest in sources.values()):
        return False
    known = {role: str(digest) for role, digest in sources.items()}
    return record.key == key_of(known, settings_digest) and all(
        digests.current(out / file) == digest for file, digest in record.files.items()
    )


def _whole(record: Record, task: Task, digests: Digests) -> bool:
    return all(digests.of(task.settings.out / file) == digest for file, digest in record.files.items())
