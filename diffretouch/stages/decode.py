"""decode: every RAW and every expert's picture to 16-bit sRGB of one size, and a manifest row for each photo."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from diffretouch.color import linear_to_srgb
from diffretouch.config import Corpus, Decode, Params
from diffretouch.corpus.layout import Photo, list_photos, read_card
from diffretouch.corpus.split import split_of
from diffretouch.errors import PhotoError, UserError
from diffretouch.files import pictures, raw
from diffretouch.files.atomic import write_json
from diffretouch.files.tables import write_table
from diffretouch.files.workspace import corpus_dir, new_dir, stage_dir
from diffretouch.processes import map_in_processes
from diffretouch.progress import track


@dataclass(frozen=True)
class Job:
    """What one photo's decoding needs."""

    out: Path
    decode: Decode
    corpus: Corpus


def run(params: Params, dataset: str) -> None:
    """Decode `data/<dataset>` into `work/decode/<dataset>`; UserError when too many photos cannot be used."""
    corpus = params.corpus(dataset)
    source = corpus_dir(dataset)
    card = read_card(source)
    photos = list_photos(source, corpus.experts)
    job = Job(new_dir(stage_dir("decode", dataset)), params.decode, corpus)
    decoding = map_in_processes(partial(decode_photo, job=job), photos, params.runtime.workers)
    rows = list(track(decoding, f"decode {dataset}", len(photos)))
    manifest = pd.DataFrame(rows).sort_values("photo_id", ignore_index=True)
    write_table(job.out / "manifest.parquet", manifest)
    write_json(job.out / "corpus.json", {**card.model_dump(), "decode_profile": params.decode.profile})
    bad = manifest[manifest["status"] == "quarantined"]
    for photo_id, reason in zip(bad["photo_id"], bad["reason"], strict=True):
        print(f"quarantined {photo_id}: {reason}")
    if len(bad) > params.decode.max_quarantined_share * len(manifest):
        raise UserError(
            f"{len(bad)} of {len(manifest)} photos of {dataset} cannot be used, more than "
            f"decode.max_quarantined_share {params.decode.max_quarantined_share}: mend the files named above, "
            f"then `dvc repro decode@{dataset}`"
        )


def decode_photo(photo: Photo, job: Job) -> dict[str, object]:
    """One photo's row of the manifest, its pictures written; what cannot be used is quarantined with a reason."""
    torch.set_num_threads(1)
    row: dict[str, object] = {
        "photo_id": photo.photo_id,
        "group": photo.group,
        "split": "",
        "status": "ok",
        "reason": "",
        "width": 0,
        "height": 0,
        "camera": photo.camera,
        "licence": photo.licence,
        "categories": photo.categories,
        "input": None,
        **{f"expert_{x}": None for x in photo.experts},
        "mask": None,
    }
    try:
        row["split"] = split_of(photo.photo_id, photo.group, job.corpus.split.test_from, job.corpus.split.val_share)
        images = _read(photo, job)
    except PhotoError as error:
        return row | {"status": "quarantined", "reason": str(error)}
    row["height"], row["width"] = images["input"].shape[:2]
    for name, image in images.items():
        file = Path(name) / f"{photo.photo_id}{'.png' if name == 'mask' else '.tif'}"
        write = pictures.write_png8 if name == "mask" else pictures.write_tiff16
        write(job.out / file, image)
        row[name] = file.as_posix()
    return row


def _read(photo: Photo, job: Job) -> dict[str, pictures.Picture]:
    """The photo's pictures by manifest column, all of one size, or PhotoError."""
    developed = raw.decode(photo.raw, demosaic=job.decode.demosaic, highlights=job.decode.highlights)
    images = {"input": linear_to_srgb(torch.from_numpy(developed.rgb_linear)).numpy()}
    for expert, path in photo.experts.items():
        images[f"expert_{expert}"] = pictures.read_srgb(path, untagged=job.corpus.untagged)
    if photo.mask is not None:
        images["mask"] = pictures.read_mask(photo.mask)
    size = images["input"].shape[:2]
    for name, image in images.items():
        if image.shape[:2] != size:
            height, width = image.shape[:2]
            raise PhotoError(f"size mismatch: {name} is {width}x{height}, but the RAW decodes to {size[1]}x{size[0]}")
        if not np.isfinite(image).all():
            raise PhotoError(f"{name} holds values that are not numbers")
    return {name: pictures.reduce_to(image, short_edge=job.corpus.short_edge) for name, image in images.items()}
