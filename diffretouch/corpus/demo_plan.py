"""Which photos the demo corpora hold: ids, scenes, crops. Splits are disjoint by scene; test photos are photographs.

Group names fall into val by the hash of `corpora.<dataset>.split`: in fivek `garage` and `sunset`, in ppr10k 9 and 39.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffretouch.corpus.demo_scenes import Box, View

# crops as (left, top, height) in shares of the source's height, and 1 for mirrored
CROPS: dict[str, tuple[tuple[bool, Box | None], ...]] = {
    "pagoda": ((False, None), (True, (0.16, 0.0, 1.0, 0)), (False, (0.45, 0.28, 0.70, 1))),
    "astronaut": ((True, (0.18, 0.0, 1.0, 0)), (False, (0.0, 0.0, 0.66, 0)), (False, (0.0, 0.3, 0.66, 1))),
    "coffee": ((False, None), (True, (0.42, 0.0, 1.0, 0))),
    "cat": ((False, None), (False, (0.05, 0.05, 0.90, 1)), (False, (0.15, 0.08, 0.86, 0))),
    "flower": (
        (False, None),
        (True, (0.40, 0.0, 1.0, 0)),
        (False, (0.25, 0.08, 0.80, 1)),
        (True, (0.45, 0.1, 0.9, 1)),
        (False, (0.1, 0.2, 0.78, 0)),
    ),
    "officer": (
        (True, (0.1, 0.0, 1.0, 0)),
        (False, (0.0, 0.05, 0.56, 0)),
        (True, (0.16, 0.05, 0.90, 1)),
        (False, (0.0, 0.35, 0.56, 1)),
        (False, (0.02, 0.2, 0.54, 1)),
    ),
    "rocket": ((False, None), (True, (0.5, 0.0, 1.0, 0)), (False, (0.3, 0.3, 0.7, 1)), (True, (0.1, 0.1, 0.9, 1))),
    "garage": ((False, (0.0, 0.0, 0.98, 0)), (True, (0.62, 0.1, 0.9, 1)), (False, (0.15, 0.2, 0.78, 1))),
    "deep_field": ((False, (0.1, 0.2, 0.6, 0)),),
}


@dataclass(frozen=True)
class Shot:
    """One photo of a corpus."""

    photo_id: str
    group: str
    split: str
    view: View
    layout: int
    """Seed of a rendered scene's layout."""
    title: str


def _views(scene: str, painter: str | None, count: int) -> list[View]:
    if painter is None:
        return [View(scene, upright=upright, box=box) for upright, box in CROPS[scene][:count]]
    tall = painter == "portrait"
    return [View(scene, painter, upright=(take % 2 == 0) == tall) for take in range(count)]


def _fivek() -> tuple[Shot, ...]:
    test = (("pagoda", 3), ("astronaut", 3), ("coffee", 2), ("cat", 2))
    train = (
        ("flower", None, 5),
        ("officer", None, 5),
        ("rocket", None, 4),
        ("garage", None, 3),
        ("deep_field", None, 1),
        ("hills", "landscape", 3),
        ("meadow", "landscape", 2),
        ("sunset", "sunset", 2),
        ("fog", "forest", 2),
        ("forest", "forest", 1),
        ("night_street", "street", 2),
        ("still_life", "table", 3),
        ("lamp", "table", 2),
        ("portrait_1", "portrait", 2),
        ("studio", "portrait", 1),
    )
    shots: list[Shot] = []
    for layout, (scene, painter, count) in enumerate(train):
        for take, view in enumerate(_views(scene, painter, count), 1):
            name = f"a{len(shots) + 1:04d}-{scene}_{take}"
            shots.append(Shot(name, scene, "train", view, 500 + layout, scene))
    first = len(shots)
    for scene, count in test:
        for take, view in enumerate(_views(scene, None, count), 1):
            name = f"a{4501 + len(shots) - first}-{scene}_{take}"
            shots.append(Shot(name, scene, "test", view, 0, scene))
    return tuple(shots)


def _ppr10k() -> tuple[Shot, ...]:
    groups = (
        (9, "coffee", None, 2),
        (12, "flower", None, 4),
        (20, "garage", None, 3),
        (33, "portrait_a", "portrait", 3),
        (39, "portrait_b", "portrait", 2),
        (58, "portrait_c", "portrait", 4),
        (77, "portrait_d", "portrait", 3),
        (1357, "astronaut", None, 3),
        (1361, "officer", None, 3),
        (1370, "cat", None, 3),
    )
    return tuple(
        Shot(f"{number}_{take}", str(number), "test" if number >= 1356 else "train", view, 600 + number, scene)
        for number, scene, painter, count in groups
        for take, view in enumerate(_views(scene, painter, count))
    )


FIVEK = _fivek()
PPR10K = _ppr10k()
