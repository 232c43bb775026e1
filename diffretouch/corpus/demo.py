"""The demo corpora: both datasets, small, in their true layouts, through a simulated camera and simulated experts."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
import yaml

from diffretouch.corpus import demo_camera, demo_experts
from diffretouch.corpus.demo_camera import CAMERAS, PHASES, Exposure
from diffretouch.corpus.demo_experts import Taste
from diffretouch.corpus.demo_plan import FIVEK, PPR10K, Shot
from diffretouch.corpus.demo_scenes import PHOTOGRAPHS, Scene, build
from diffretouch.corpus.demo_tables import (
    Draws,
    Floats,
    linear_from_srgb,
    look_up,
    mix_channels,
    romm_from_linear,
    srgb_from_linear,
)
from diffretouch.errors import UserError
from diffretouch.files.atomic import whole, write_text
from diffretouch.files.pictures import Space, icc, write_png8
from diffretouch.files.raw import decode
from diffretouch.files.workspace import new_dir

# ProPhoto (ROMM, D50) from linear sRGB (D65), Bradford-adapted; rows sum to 1, so white stays white
ROMM_FROM_SRGB = [[0.52928, 0.33015, 0.14057], [0.09837, 0.87347, 0.02816], [0.01688, 0.11766, 0.86546]]
NOTES = (
    "Simulated by `diffretouch demo-data`: photographs shipped inside the wheels of scikit-learn, scikit-image and "
    "matplotlib, and rendered scenes (training only), through a simulated camera and simulated experts. No number "
    "measured here says anything about real retouchers."
)


@dataclass(frozen=True)
class Corpus:
    """One demo corpus: its photos, its experts, how a photo's files are written."""

    name: str
    seed: int
    shots: tuple[Shot, ...]
    tastes: dict[str, Taste]
    raw: str
    """Folder of the RAW files."""


@dataclass(frozen=True)
class Photo:
    """One simulated photo before it is written."""

    scene: Scene
    exposure: Exposure
    bayer: np.ndarray
    experts: dict[str, Floats]


def write_demo(
    root: Path, progress: Callable[[Iterable, str, int], Iterable] | None = None, limit: int | None = None
) -> None:
    """Write `root`/fivek and `root`/ppr10k; `limit` photos of each when given.

    `progress(items, what, total)` may wrap the loop, as `diffretouch.progress.track` does.
    """
    for corpus in CORPORA:
        _refuse_real(root / corpus.name)
    for corpus in CORPORA:
        part = new_dir(root / f".{corpus.name}.part")
        shots = corpus.shots[:limit]
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            done: Iterable = pool.map(lambda shot, c=corpus, p=part: _write_photo(p, c, shot), shots)
            for _ in done if progress is None else progress(done, f"demo {corpus.name}", len(shots)):
                pass
        _write_photos_csv(part, corpus, shots)
        _write_corpus_yaml(part, corpus)
        # renamed, not removed in place: stopped at any moment, what is left is whole, or absent and written anew
        before = root / f".{corpus.name}.before"
        shutil.rmtree(before, ignore_errors=True)
        if (root / corpus.name).exists():
            (root / corpus.name).rename(before)
        part.rename(root / corpus.name)
        shutil.rmtree(before, ignore_errors=True)


def _refuse_real(folder: Path) -> None:
    """Never write over a corpus that is not a demo."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    about = folder / "corpus.yaml"
    if not about.exists() or re.search(r"^provenance: *simulated\s*$", about.read_text(), re.M) is None:
        raise UserError(
            f"{folder} holds something that is no demo corpus (its corpus.yaml does not say `provenance: simulated`): "
            "it is left alone. A corpus of your own needs a corpus.yaml (name, provenance: real, licence) and then "
            "`make repro`; to see the demo beside it, `diffretouch demo-data --root ELSEWHERE`"
        )


def simulate(corpus: Corpus, shot: Shot) -> Photo:
    """The photo of `shot`: its scene, its mosaic, every expert's sRGB picture."""
    number = corpus.shots.index(shot)
    draws = Draws(corpus.seed * 100_000 + number * 100)
    scene = build(shot.view, shot.layout, draws)
    exposure = _exposure(shot, number, draws)
    bayer = demo_camera.mosaic(scene.light, exposure, draws)
    look = demo_experts.look_at(scene)
    turn = [other for other in corpus.shots if other.split == shot.split].index(shot)
    days = demo_experts.days(len(corpus.tastes), turn, draws)
    experts = {
        letter: demo_experts.retouch(scene, look, taste, day, draws)
        for (letter, taste), day in zip(corpus.tastes.items(), days, strict=True)
    }
    return Photo(scene, exposure, bayer, experts)


def _exposure(shot: Shot, number: int, draws: Draws) -> Exposure:
    camera = CAMERAS[number % 2]
    red, green, blue = camera.neutral
    orientation = (6, 8)[draws.choice(2)] if shot.view.upright else (3 if number % 7 == 3 else 1)
    return Exposure(
        camera=camera,
        phase=tuple(PHASES)[number % 4],
        orientation=orientation,
        gain=round(0.8 * 2 ** draws.uniform(-0.35, 0.35), 6),
        neutral=(red * (1 + draws.uniform(-0.06, 0.06)), green, blue * (1 + draws.uniform(-0.06, 0.06))),
        iso=(100, 200, 400, 800)[draws.choice(4)],
    )


def _write_photo(folder: Path, corpus: Corpus, shot: Shot) -> None:
    photo = simulate(corpus, shot)
    raw = folder / corpus.raw / f"{shot.photo_id}.dng"
    with whole(raw) as temporary:
        demo_camera.write_dng(temporary, photo.bayer, photo.exposure)
    name = f"{shot.photo_id}.tif"
    if corpus.name == "fivek":
        for letter, picture in photo.experts.items():
            _write_tiff(folder / f"tiff16_{letter}" / name, _prophoto(picture), "prophoto")
        return
    developed = look_up(srgb_from_linear(), decode(raw).rgb_linear)
    _write_tiff(folder / "source" / name, _steps(developed, 65535), "srgb")
    for letter, picture in photo.experts.items():
        _write_tiff(folder / f"target_{letter}" / name, _steps(picture, 255).astype(np.uint8), "srgb")
    write_png8(folder / "masks" / f"{shot.photo_id}.png", photo.scene.subject)


def _prophoto(picture: Floats) -> np.ndarray:
    """From sRGB in [0,1] to 16-bit ProPhoto values of 12 significant bits, a third smaller once compressed."""
    romm = look_up(romm_from_linear(), mix_channels(look_up(linear_from_srgb(), picture), ROMM_FROM_SRGB))
    return _steps(romm, 4095) * np.uint16(16)


def _steps(picture: Floats, top: int) -> np.ndarray:
    return (np.clip(picture, 0, 1) * np.float32(top) + np.float32(0.5)).astype(np.uint16)


def _write_tiff(path: Path, pixels: np.ndarray, space: Space) -> None:
    with whole(path) as temporary:
        tifffile.imwrite(
            temporary,
            pixels,
            photometric="rgb",
            compression="zlib",
            compressionargs={"level": 4},
            predictor=2,
            iccprofile=icc(space),
            metadata=None,
            software=False,
        )


def _write_photos_csv(folder: Path, corpus: Corpus, shots: tuple[Shot, ...]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["photo_id", "group", "split", "licence", "categories", "camera"])
    for shot in shots:
        source = PHOTOGRAPHS.get(shot.view.scene)
        licence = source.licence if source else "CC0, rendered"
        kind = "photograph" if source else "rendered"
        camera = CAMERAS[corpus.shots.index(shot) % 2].model
        table.writerow([shot.photo_id, shot.group, shot.split, licence, f"{kind} {shot.view.scene}", camera])
    write_text(folder / "photos.csv", text.getvalue())


def _write_corpus_yaml(folder: Path, corpus: Corpus) -> None:
    tree = {
        "name": f"{corpus.name} demo",
        "provenance": "simulated",
        "licence": "; ".join(f"{name}: {source.licence}" for name, source in PHOTOGRAPHS.items()),
        "notes": NOTES,
    }
    write_text(folder / "corpus.yaml", yaml.safe_dump(tree, sort_keys=False, width=100))


CORPORA = (
    Corpus("fivek", 1, FIVEK, demo_experts.FIVEK, "dng"),
    Corpus("ppr10k", 2, PPR10K, demo_experts.PPR10K, "raw"),
)
