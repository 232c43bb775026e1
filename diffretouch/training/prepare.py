"""What every training run on a dataset starts from: the frozen autoencoder and the ground truths' views."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from diffretouch.attributes import ATTRIBUTES
from diffretouch.code import BELOW, code_marks
from diffretouch.condition import conditions, just_noticeable
from diffretouch.config import Attributes, Params, Train
from diffretouch.errors import UserError
from diffretouch.files.atomic import write_json
from diffretouch.files.scales import read_scales
from diffretouch.files.tables import read_table
from diffretouch.files.workspace import new_dir, stage_dir
from diffretouch.model.build import AutoencoderKL, trained_autoencoder
from diffretouch.training import autoencoder
from diffretouch.training.data import GroundTruths, Source, digest_of, open_views, some_results, write_views
from diffretouch.training.resume import Mark, flat

FIT_PICTURES = 64
"""Ground truths the small autoencoder is fitted on, at most."""
MARKS = "marks.json"
VIEWS_CODE = (*BELOW, "training/autoencoder.py", "training/data.py", "training/prepare.py")
CODE = (*BELOW, "training", "stages/train.py")
"""Of this package, what a training's weights depend on, and what its views do."""


@dataclass(frozen=True)
class Prepared:
    """A dataset, ready to train on."""

    vae: AutoencoderKL
    train: GroundTruths
    val: GroundTruths
    scheme: Attributes
    """As the attributes stage had it."""
    scales: dict[str, Any]
    """The attributes stage's scales.json."""
    digest: dict[str, Any]
    """Of all that the losses see: of the photos, results and latents for train and for val, and the scales."""

    @property
    def scale(self) -> Tensor:
        """(4,) mean half-range of the experts over the training photos."""
        return torch.tensor([self.scales["half_range"][a] for a in ATTRIBUTES])

    def noticeable(self, data: GroundTruths) -> Tensor:
        """(V,4) whether the experts differ noticeably on each view of `data`."""
        return data.half >= just_noticeable(data.mid, self.scheme)

    def marks(self, settings: Train, code: tuple[str, ...] = ()) -> dict[str, Mark]:
        """What a training with `settings` on this is made of, for its resumable states; `code`: of another network."""
        return {
            **flat(settings.model_dump(mode="json"), "train"),
            **flat(self.digest, "data"),
            **_made_by((*CODE, *code)),
        }


def prepare(
    params: Params,
    dataset: str,
    folder: Path,
    device: torch.device,
    photos: dict[str, pd.DataFrame] | None = None,
) -> None:
    """Fit the autoencoder and write the views of `dataset` into `folder`; nothing where that was done before.

    `photos` are the manifest's rows for train and val, if other than its own splits.
    """
    settings, experts = params.train, params.corpus(dataset).experts
    decoded, attributes = stage_dir("decode", dataset), stage_dir("attributes", dataset)
    rows = photos or usable_photos(dataset, experts)
    scales, scheme = read_scales(dataset), _scheme(dataset)
    rows = {"train": rows["train"], "val": _spread(rows["val"], settings.validation_photos)}
    marks = {
        **flat([settings.views, settings.seed, settings.network_size], "settings"),
        **flat(settings.autoencoder.model_dump(mode="json"), "autoencoder"),
        **flat(settings.start.model_dump(mode="json"), "start"),
        **flat(scales, "attributes"),
        **_made_by(VIEWS_CODE),
        **{str(path.relative_to(decoded)): _stamp(path) for path in _pictures(rows, decoded, experts)},
        "device": device.type,
    }

    def make(out: Path) -> None:
        vae = trained_autoencoder(settings)
        if vae is None:
            pictures = partial(some_results, rows["train"], decoded, experts, settings.network_size, FIT_PICTURES)
            vae = _fitted(settings, pictures, device, out / "autoencoder")
        vae.eval().requires_grad_(False).to(device)
        table = read_table(attributes / "attributes.parquet", ["split", *(f"score_{a}" for a in ATTRIBUTES)])
        scored = torch.tensor(table.loc[table["split"] == "train", [f"score_{a}" for a in ATTRIBUTES]].to_numpy())
        source = Source(
            folder=decoded,
            experts=experts,
            size=scheme.size,
            network_size=settings.network_size,
            make_c=partial(conditions, training=scored, settings=scheme),
            encode=partial(autoencoder.encode, vae),
            workers=params.runtime.workers,
        )
        for split, views in (("train", settings.views), ("val", 1)):
            (out / split).mkdir(exist_ok=True)
            write_views(rows[split], source, views, settings.seed, out / split)

    _once(folder, marks, make)


def _fitted(settings: Train, pictures: Callable[[], Tensor], device: torch.device, folder: Path) -> AutoencoderKL:
    """The small autoencoder, fitted and saved in `folder` unless it lies there."""
    if not folder.exists():
        vae = autoencoder.fit(settings.autoencoder, pictures(), settings.seed, device)
        beside = new_dir(folder.with_name(f".{folder.name}"))
        vae.save_pretrained(beside)
        beside.replace(folder)
    return AutoencoderKL.from_pretrained(folder, local_files_only=True)


def open_prepared(params: Params, dataset: str, folder: Path, device: torch.device) -> Prepared:
    """What `prepare` left in `folder`."""
    fitted = folder / "autoencoder"
    vae = trained_autoencoder(params.train) or AutoencoderKL.from_pretrained(fitted, local_files_only=True)
    scales = read_scales(dataset)
    return Prepared(
        vae=vae.eval().requires_grad_(False).to(device),
        train=open_views(folder / "train"),
        val=open_views(folder / "val"),
        scheme=_scheme(dataset),
        scales=scales,
        digest={"train": digest_of(folder / "train"), "val": digest_of(folder / "val"), "scales": scales},
    )


def _once(folder: Path, marks: Mapping[str, Mark], make: Callable[[Path], None]) -> None:
    """Let `make` fill `folder`, whole, unless it was filled for the same `marks`.

    It is filled beside; stopped, the next call for the same marks hands `make` what is there already.
    """
    part = folder.with_name(f".{folder.name}.part")
    if _marks_of(folder) == marks:
        shutil.rmtree(part, ignore_errors=True)  # an abandoned one for other marks
        return
    if _marks_of(part) != marks:
        new_dir(part)
        write_json(part / MARKS, marks)
    make(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)


def _marks_of(folder: Path) -> dict[str, Mark] | None:
    return json.loads((folder / MARKS).read_text()) if (folder / MARKS).exists() else None


def usable_photos(dataset: str, experts: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """The manifest's usable photos of the splits train and val; UserError where there are none."""
    decoded = stage_dir("decode", dataset)
    columns = ["photo_id", "group", "split", "status", "input", *(f"expert_{x}" for x in experts)]
    manifest = read_table(decoded / "manifest.parquet", columns)
    usable = manifest[manifest["status"] == "ok"]
    rows = {split: usable[usable["split"] == split] for split in ("train", "val")}
    for split, found in rows.items():
        if found.empty:
            raise UserError(f"{dataset} has no usable {split} photos: see {decoded}/manifest.parquet")
    return rows


def _spread(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """`count` of the rows at most, at even distances."""
    taken = min(count, len(rows))
    return rows.iloc[[i * len(rows) // taken for i in range(taken)]]


def _pictures(rows: dict[str, pd.DataFrame], decoded: Path, experts: tuple[str, ...]) -> list[Path]:
    names = ["input", *(f"expert_{x}" for x in experts)]
    return [decoded / name for found in rows.values() for name in found[names].to_numpy().ravel()]


def _stamp(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns}"


def _scheme(dataset: str) -> Attributes:
    scales = read_scales(dataset)
    return Attributes.model_validate({key: scales[key] for key in ("size", "scheme", "just_noticeable")})


def _made_by(code: tuple[str, ...]) -> dict[str, Mark]:
    return {**flat(code_marks(code), "code"), **{name: version(name) for name in ("torch", "diffusers")}}
