"""Which pictures are shown beside which, blinded: the plan of a paired-comparison study.

Three questions, asked of every photo in turn: is our result for expert x preferred to
 - expert x's own result (can we be told from the person?),
 - the mean of the experts' pictures (is a style better than the average?),
 - the untouched input (did retouching help at all?).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

OPPONENTS = ("expert", "mean_expert", "input")


@dataclass(frozen=True)
class Arm:
    """One of the two pictures of a pair."""

    name: str
    """ours | expert | mean_expert | input."""
    expert: str
    """The expert whose style is asked for; empty for mean_expert and input."""


@dataclass(frozen=True)
class Trial:
    """One screen: the rater picks left or right."""

    number: int
    photo_id: str
    left: Arm
    right: Arm
    repeat_of: int | None
    """The trial this one repeats with sides swapped, to measure a rater's consistency."""
    left_file: str = ""
    right_file: str = ""
    """Given by `named`."""


def plan(
    photo_ids: Sequence[str], experts: Sequence[str], *, pairs_a_photo: int, repeats: int, seed: int
) -> list[Trial]:
    """Trials in the order they are shown: `pairs_a_photo` pairs a photo and `repeats` of them again, sides swapped.

    Opponents take turns, and so do the experts from photo to photo. Order and sides are drawn from `seed`. Repeats come
    last.
    """
    rng = np.random.default_rng(seed)
    pairs: list[tuple[str, Arm, Arm]] = []
    for i, photo_id in enumerate(sorted(photo_ids)):
        for k in range(pairs_a_photo):
            name, expert = OPPONENTS[k % len(OPPONENTS)], experts[(i + k // len(OPPONENTS)) % len(experts)]
            pairs.append((photo_id, Arm("ours", expert), Arm(name, expert if name == "expert" else "")))
    order = rng.permutation(len(pairs))
    swapped = _balanced(len(pairs), rng)
    shown: list[tuple[str, Arm, Arm, int | None]] = []
    for index, swap in zip(order, swapped, strict=True):
        photo_id, one, other = pairs[index]
        shown.append((photo_id, other, one, None) if swap else (photo_id, one, other, None))
    # earliest trials first: as far from their first showing as can be
    for first in range(min(repeats, len(shown))):
        photo_id, left, right, _ = shown[first]
        shown.append((photo_id, right, left, first + 1))
    return [
        Trial(number, photo_id, left, right, repeat_of)
        for number, (photo_id, left, right, repeat_of) in enumerate(shown, start=1)
    ]


def named(trials: Sequence[Trial], *, seed: int, pictures: bytes) -> list[Trial]:
    """The trials with file names drawn from `seed` and a digest of the `pictures` that are shown.

    Every side of every trial has a name of its own, so that names tell neither arm nor photo, nor which trial repeats
    another; other pictures have other names, so that no vote is ever taken for one on another model.
    """
    names = iter(_opaque(2 * len(trials), np.random.default_rng([seed, *pictures])))
    return [replace(trial, left_file=next(names), right_file=next(names)) for trial in trials]


def _balanced(count: int, rng: np.random.Generator) -> list[bool]:
    """Half true, half false, in random order: our side is left as often as right, to one."""
    return [bool(value) for value in rng.permutation(np.arange(count) % 2)]


def _opaque(count: int, rng: np.random.Generator) -> list[str]:
    """File names that say nothing: distinct 48-bit numbers."""
    names: dict[str, None] = {}
    while len(names) < count:
        names[f"{int(rng.integers(2**48)):012x}.jpg"] = None
    return list(names)
