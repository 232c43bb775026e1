"""Files of weights that params.yaml names: there, and with the checksum that is named."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from diffretouch.config import Params
from diffretouch.doctor.finding import Finding, size_text

FILE = "diffusion_pytorch_model.safetensors"
"""diffusers' name for a part's weights."""
QUICK_BYTES = 300 * 2**20
"""What is hashed within a second; more only when asked for."""


def check_weights(params: Params, root: Path, *, full: bool) -> list[Finding]:
    """A finding for each source of weights; large files are hashed with `full` only, and it is said."""
    found = [_check(field, source, file, sha256, full) for field, source, file, sha256 in _named(params, root)]
    return found or [Finding("good", "weights", "params.yaml names none: training starts from random ones")]


def _named(params: Params, root: Path) -> Iterator[tuple[str, str, Path | None, str | None]]:
    """Field, source, file (None where the source is not on this machine), checksum."""
    start, own, lpips = params.train.start, params.train.autoencoder, params.evaluate.lpips
    if start.source is not None:
        folder = _folder(start.source, root)
        yield "train.start", start.source, folder and folder / "unet" / FILE, start.sha256
        if own.source is None:  # then it is the base's own
            yield "train.autoencoder of train.start", start.source, folder and folder / "vae" / FILE, own.sha256
    if own.source is not None:
        folder = _folder(own.source, root)
        if folder is not None and (folder / "vae").is_dir():
            folder = folder / "vae"
        yield "train.autoencoder", own.source, folder and folder / FILE, own.sha256
    if lpips.backbone is not None:
        yield "evaluate.lpips.backbone", str(lpips.backbone), root / lpips.backbone, lpips.sha256


def _folder(source: str, root: Path) -> Path | None:
    """A folder, or a hub id's snapshot in the local hub cache; nothing is downloaded."""
    if (root / source).is_dir():
        return root / source
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _check(field: str, source: str, file: Path | None, sha256: str | None, full: bool) -> Finding:
    if file is None or not file.is_file():
        place = file or f"{source} in the local hub cache"
        fetch = (
            f"hf download {source}" if file is None else f"put the file there, or set {field} to null in params.yaml"
        )
        return Finding("fault", "weights", f"{field} names {source!r}, but {place} is not there", fetch)
    size = file.stat().st_size
    told = f"{field}: {file} ({size_text(size)})"
    if sha256 is None:
        return Finding("note", "weights", f"{told} has no checksum in params.yaml", f"sha256sum {file}")
    if size > QUICK_BYTES and not full:
        return Finding(
            "note", "weights", f"{told} is there; too large to hash in passing", "python -m flows.doctor --full"
        )
    with file.open("rb") as stream:
        have = hashlib.file_digest(stream, "sha256").hexdigest()
    if have != sha256:
        words = f"{told} has sha256 {have[:12]}..., params.yaml names {sha256[:12]}..."
        return Finding("fault", "weights", words, f"fetch {source} again, or name its checksum: sha256sum {file}")
    return Finding("good", "weights", f"{told} has the checksum of params.yaml")
