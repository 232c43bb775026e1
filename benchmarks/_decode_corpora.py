"""The corpora of decode's benchmark, below a folder: 24-megapixel photos, and very many tiny ones already decoded."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_image

from diffretouch.config import Params
from diffretouch.corpus.demo_camera import CAMERAS, PHASES, TURNS, Exposure, mosaic, write_dng
from diffretouch.corpus.demo_tables import Draws
from diffretouch.decoding.ledger import Digests, Journal, Record, read_records, write_records
from diffretouch.files.atomic import write_text
from diffretouch.files.pictures import write_picture
from diffretouch.files.srgb import srgb_decode, srgb_encode
from diffretouch.files.workspace import corpus_dir, journal_file, stage_dir
from diffretouch.stages import decode

Light = NDArray[np.float32]
CARD = "name: benchmark\nprovenance: simulated\nlicence: see scikit-image and scikit-learn\n"
PIECE = 500


def write_large(photos: int, width: int) -> None:
    """`photos` DNGs of `width` x two thirds of it in data/fivek, of all Bayer phases and orientations by turns.

    With two experts' 16-bit ProPhoto TIFFs each: those of photos of one format are the same files by many names.
    """
    root = corpus_dir("fivek")
    scenes = {upright: collage(width, upright=upright) for upright in (False, True)}
    for upright, scene in scenes.items():
        for number, expert in enumerate("ab"):
            noise = Draws(10 + number).noise(scene.shape) * np.float32(0.005)
            retouched = srgb_encode(scene) ** np.float32(0.8 + 0.1 * number) + noise
            write_picture(root / f"tiff16_{expert}/.{upright}.tif", retouched, space="prophoto")
    kinds = list(product(TURNS, PHASES))
    (root / "dng").mkdir()
    for number in range(photos):
        # by 5: four photos have four phases and four orientations
        orientation, phase = kinds[5 * number % len(kinds)]
        camera = CAMERAS[number % 2]
        red, green, blue = camera.neutral
        shot = Exposure(camera, phase, orientation, 0.8, (red, green, blue), 200)
        upright, name = TURNS[orientation] % 2 == 1, f"a{number + 1:04d}-benchmark"
        write_dng(root / f"dng/{name}.dng", mosaic(scenes[upright], shot, Draws(100 + number)), shot)
        for expert in "ab":
            os.link(root / f"tiff16_{expert}/.{upright}.tif", root / f"tiff16_{expert}/{name}.tif")
    write_text(root / "corpus.yaml", CARD)


def collage(width: int, *, upright: bool) -> Light:
    """(H,W,3) linear light in [0,1]: pieces of photographs at random places and scales, which repeat nowhere."""
    photographs = [load_sample_image("china.jpg"), load_sample_image("flower.jpg"), data.astronaut(), data.coffee()]
    height = 2 * width // 3
    height, width = (width, height) if upright else (height, width)
    draw = np.random.default_rng(int(upright))
    scene = np.empty((height, width, 3), np.float32)
    for top, left in product(range(0, height, PIECE), range(0, width, PIECE)):
        image = photographs[draw.integers(len(photographs))]
        side = int(draw.integers(150, 350))
        y, x = (int(draw.integers(edge - side)) for edge in image.shape[:2])
        piece = Image.fromarray(image[y : y + side, x : x + side]).resize((PIECE, PIECE), Image.Resampling.BICUBIC)
        place = scene[top : top + PIECE, left : left + PIECE]
        place[:] = np.asarray(piece, np.float32)[: place.shape[0], : place.shape[1]] / np.float32(255)
    return srgb_decode(scene, out=scene)


def write_many(photos: int, params: Params) -> int:
    """`photos` tiny photos in data/fivek, and work/ as the stage leaves it once all are decoded: how many files.

    One is decoded; the others' files are its own by other names, and their records are its own for those names.
    """
    root, out = corpus_dir("fivek"), stage_dir("decode", "fivek")
    first = "a0000-tiny"
    scene = collage(96, upright=False)
    shot = Exposure(CAMERAS[0], "RGGB", 1, 0.8, (0.5, 1.0, 0.6), 200)
    (root / "dng").mkdir(parents=True)
    write_dng(root / f"dng/{first}.dng", mosaic(scene, shot, Draws(0)), shot)
    for expert in params.corpora["fivek"].experts:
        write_picture(root / f"tiff16_{expert}/{first}.tif", srgb_encode(scene), space="prophoto")
    write_text(root / "corpus.yaml", CARD)
    decode.run(params, "fivek")
    record = read_records(out.with_name(f"{out.name}.records.parquet"))[first]
    names = [f"a{number:04d}-tiny" for number in range(photos)]
    for path in [*root.glob(f"*/{first}.*"), *out.glob(f"*/{first}.*")]:
        for name in names[1:]:
            os.link(path, path.with_name(name + path.suffix))
    write_records(out.with_name(f"{out.name}.records.parquet"), {name: _renamed(record, first, name) for name in names})
    journal, known = Journal(journal_file("fivek")), Digests()
    by_inode = {stamp[2]: digest for stamp, digest in journal.digests.known.values()}
    files = [path for folder in (root, out) for path in folder.glob("*/*")]
    for path in files:
        info = path.stat()
        known.known[str(path)] = (info.st_size, info.st_mtime_ns, info.st_ino), by_inode[info.st_ino]
    journal.digests = known
    journal.end(files)
    return len(files)


def _renamed(record: Record, first: str, name: str) -> Record:
    row, files = (json.loads(json.dumps(tree).replace(first, name)) for tree in (record.row, record.files))
    return replace(record, row=row, files=files)
