"""Releases of models, told by git tags in GTO's form: who is in use now, and who was before.

`model-fivek@v3.0.0` names the third model of fivek; `model-fivek#prod#5` says that from then on its commit's model is
the one in use. No tag is ever moved or removed: going back is one more tag. `dvc artifacts get`, `gto` and plain git
read the same names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from diffretouch.errors import UserError

PREFIX = "model-"
IN_USE = "prod"
_VERSION = re.compile(r"(?P<model>[^@#]+)@v(?P<major>\d+)\.(?P<minor>\d+)\.(?P<patch>\d+)")
_USE = re.compile(rf"(?P<model>[^@#]+)#{IN_USE}#(?P<count>\d+)")
_COUNTED = re.compile(r"(?P<model>[^@#]+)[@#].*#(?P<count>\d+)")


class Tag(NamedTuple):
    """An annotated git tag."""

    name: str
    commit: str
    """40 hexadecimal digits."""
    time: int
    """When it was made, in seconds since 1970."""


class Release(NamedTuple):
    """A model that has a version."""

    model: str
    """`model-fivek`."""
    version: str
    """`v3.0.0`; empty for a commit that was put in use by hand, without a version."""
    commit: str

    @property
    def dataset(self) -> str:
        """What the model was trained for."""
        return self.model.removeprefix(PREFIX)

    @property
    def name(self) -> str:
        """As people type it: `model-fivek@v3.0.0`."""
        return f"{self.model}@{self.version or self.commit[:10]}"


class NewTags(NamedTuple):
    """What puts a model in use."""

    version: str | None
    """Name of the tag of a new version; None where an older version comes back."""
    use: str
    time: int
    """What both must carry: later than every other assignment, since GTO and DVC sort by time, to the second."""


def model_of(dataset: str) -> str:
    """The artifact in dvc.yaml that is the dataset's model."""
    return f"{PREFIX}{dataset}"


def releases(tags: Iterable[Tag], model: str) -> list[Release]:
    """Every version of `model`, the oldest first."""
    found = [(match, tag) for tag in tags if (match := _VERSION.fullmatch(tag.name)) and match["model"] == model]
    found.sort(key=lambda pair: tuple(int(pair[0][part]) for part in ("major", "minor", "patch")))
    return [Release(model, tag.name.partition("@")[2], tag.commit) for _, tag in found]


def line(tags: Iterable[Tag], model: str) -> list[Release]:
    """The model in use, last, and before it those that one goes back to, one after the other; empty without one.

    A model that came back drops what was in use since: v1, v2, back to v1, v3 is the line v1, v3.
    """
    tags = list(tags)
    known = {release.commit: release for release in releases(tags, model)}
    found: list[Release] = []
    for use in _uses(tags, model):
        release = known.get(use.commit, Release(model, "", use.commit))
        if release in found:
            del found[found.index(release) :]
        found.append(release)
    return found


def find(tags: Iterable[Tag], text: str) -> Release:
    """The release that `text` names: fivek or model-fivek (the one in use), model-fivek@v3.0.0, @v3 or @3.

    UserError names what there is.
    """
    tags = list(tags)
    dataset, _, version = text.partition("@")
    model = model_of(dataset.removeprefix(PREFIX))
    there = releases(tags, model)
    if not version:
        in_use = line(tags, model)
        if in_use:
            return in_use[-1]
        raise UserError(f"no model of {model} is in use: it has {_names(there)}")
    parts = [*version.removeprefix("v").split("."), "0", "0"][:3]
    for release in there:
        if release.version == "v" + ".".join(parts):
            return release
    raise UserError(f"{model} has no version {version}: it has {_names(there)}")


def new_tags(tags: Iterable[Tag], model: str, now: int, *, version: bool) -> NewTags:
    """Names for putting a model in use at the second `now`, as a new version or, without, one that is known."""
    tags = list(tags)
    last = max((use.time for use in _uses(tags, model)), default=0)
    counts = [
        int(match["count"]) for tag in tags if (match := _COUNTED.fullmatch(tag.name)) and match["model"] == model
    ]
    numbers = [int(release.version[1:].split(".")[0]) for release in releases(tags, model)]
    return NewTags(
        f"{model}@v{max(numbers, default=0) + 1}.0.0" if version else None,
        f"{model}#{IN_USE}#{max(counts, default=0) + 1}",
        max(now, last + 1),
    )


def _uses(tags: Iterable[Tag], model: str) -> list[Tag]:
    found = [(match, tag) for tag in tags if (match := _USE.fullmatch(tag.name)) and match["model"] == model]
    return [tag for match, tag in sorted(found, key=lambda pair: (pair[1].time, int(pair[0]["count"])))]


def _names(found: list[Release]) -> str:
    return ", ".join(release.name for release in found) or "no version yet: `python -m flows.retrain` makes the first"
