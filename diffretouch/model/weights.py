"""Trained weights on this machine: found without a download, and checked before they are read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from huggingface_hub import metadata_load, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from yaml import YAMLError

from diffretouch.errors import UserError

LATENT_CHANNELS = 4
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"


def find(source: str, field: str, instead: str) -> Path:
    """The folder that `source` names: a local one, or a hub id's in the local hub cache.

    Nothing is downloaded silently. Raises UserError when it is absent; `field` of `params.yaml` named it, and
    `instead` says what a null there does.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(source, local_files_only=True))
    except (LocalEntryNotFoundError, RepositoryNotFoundError, HfHubHTTPError, ValueError, OSError) as error:
        raise UserError(
            f"{field} {source!r} is neither a folder nor in the local hub cache; fetch it with "
            f"`hf download {source}`, or set the source to null to {instead}"
        ) from error


def check(file: Path, sha256: str, meant: str) -> None:
    """Raise UserError unless `file`, the weights of `meant`, exists and has the checksum."""
    if not file.exists():
        raise UserError(f"{file} not found: {meant} in diffusers' layout was expected in {file.parent}")
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise UserError(f"{file} has sha256 {found}, but params.yaml expects {sha256}")


def origin_of(source: str, sha256: str) -> dict[str, Any]:
    """What a model card tells of trained weights at `source`: their name, checksum, and the licence of their own card.

    A folder is named without where it lies. Of one of our own models, what it says of itself.
    """
    folder = find(source, "the source", "do without")
    index = folder / "model_index.json"
    if index.exists() and (origin := read_config(index).get("origin")):
        return origin
    card = folder / "README.md"
    try:
        front = (metadata_load(card) or {}) if card.exists() else {}
    except (YAMLError, ValueError) as error:
        raise UserError(
            f"{card} does not begin with a model card's YAML, where its licence would be: {error}"
        ) from error
    licence = front.get("license_name") if front.get("license") == "other" else front.get("license")
    told = {"weights": folder.name if Path(source).is_dir() else source, "sha256": sha256}
    return told | ({"licence": str(licence)} if licence else {})


def read_config(file: Path) -> dict[str, Any]:
    """A part's configuration in diffusers' layout; raises UserError when it is absent."""
    if not file.exists():
        raise UserError(f"{file} not found: a model in diffusers' layout was expected in {file.parent.parent}")
    return json.loads(file.read_text())


def load_autoencoder(source: str, sha256: str, field: str = "train.autoencoder.source") -> AutoencoderKL:
    """The frozen autoencoder of a folder or hub id, which may also hold it as its `vae/`.

    Raises UserError when it is absent, when its checksum differs, or when its latents are of another shape.
    """
    folder = find(source, field, "fit a small one")
    folder = folder / "vae" if (folder / "vae").is_dir() else folder
    check(folder / WEIGHTS_FILE, sha256, "an AutoencoderKL")
    vae = AutoencoderKL.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    channels, levels = vae.config.latent_channels, len(vae.config.block_out_channels)
    if (channels, levels) != (LATENT_CHANNELS, 4):
        raise UserError(
            f"{folder} makes latents of {channels} channels at 1/{2 ** (levels - 1)} of the size, but "
            f"{LATENT_CHANNELS} channels at 1/8 are needed: take Stable Diffusion 1.x's or 2.x's autoencoder"
        )
    return vae
