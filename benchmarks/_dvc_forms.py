"""Three forms of decode's pictures - plain files, a TIFF a photo, zip shards - as DVC and a reader find them."""

from __future__ import annotations

import io
import random
import shutil
import statistics
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaml
from numpy.typing import NDArray

from benchmarks._dvc_corpora import with_data
from benchmarks._dvc_scratch import Case, Scratch, bytes_in

FORMS = ("plain files", "a TIFF a photo", "zip shards")
PICTURES = ("input", "expert_a", "expert_b", "expert_c", "expert_d", "expert_e")
# 64 x 104 of noise at 16 bit: about 40 KB, which deflate cannot reduce
SHAPE, SHARD, READS = (64, 104, 3), 64, 500
READERS = ("attributes", "train", "sample", "evaluate", "embed", "study")
OUT = Path("work/decode/fivek")


def measure(top: Path, *, form: str, files: int, photos: int) -> Case:
    """What a stage costs whose output folder holds 6 pictures of each photo, beside a data/ of that many files."""
    scratch = with_data(top / "repo", files)
    scratch.dvc("add", "data")
    out = scratch.folder / OUT
    write(out, contents(form, range(photos), photos))
    write(out, [("manifest.csv", b"photo_id,md5\n")])
    (scratch.folder / "code.py").write_text("first")
    (scratch.folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages()}))
    found: Case = {"files in the folder": sum(path.is_file() for path in out.rglob("*"))}
    found["`dvc repro decode`, the first: hash and cache all"] = scratch.dvc("repro", "decode")
    found["`dvc status decode`, no change"] = scratch.median("status", "decode")
    found["`dvc repro decode`, no change"] = scratch.median("repro", "decode")
    for kind in ("folder", "manifest"):
        readers = [f"{reader}-{kind}" for reader in READERS]
        scratch.dvc("repro", *readers)
        found[f"`dvc repro`, no change, six stages depend on the {kind}"] = scratch.median("repro", *readers)
    found["`dvc push decode`, the first"] = scratch.dvc("push", "decode")
    for what, photo, total in (("changed", photos // 2, photos), ("added", photos, photos + 1)):
        change(found, scratch, f"one photo {what}", contents(form, [photo], total, changed=photo))
    shutil.rmtree(out)
    found["`dvc checkout decode` into an empty work tree"] = scratch.dvc("checkout", "decode")
    found["reading one picture, ms"] = read_milliseconds(form, out, photos)
    return found


def change(found: Case, scratch: Scratch, what: str, files: Iterable[tuple[str, bytes]]) -> None:
    """Write these files into the output, let the stage run again, push; seconds and bytes of each go to `found`."""
    (scratch.folder / "code.py").write_text(what)
    cached, pushed = bytes_in(scratch.cache), bytes_in(scratch.remote)
    found[f"MB to write and hash, {what}"] = write(scratch.folder / OUT, files) / 1e6
    found[f"`dvc repro decode`, {what}"] = scratch.dvc("repro", "decode")
    found[f"MB more in the cache, {what}"] = (bytes_in(scratch.cache) - cached) / 1e6
    found[f"`dvc push decode`, {what}"] = scratch.dvc("push", "decode")
    found[f"MB more in the remote, {what}"] = (bytes_in(scratch.remote) - pushed) / 1e6


def stages() -> dict[str, Any]:
    """A decode stage that keeps its outputs, and this project's six stages that read them, in two wirings."""
    deps = ["data/fivek", "code.py"]
    found: dict[str, Any] = {"decode": {"cmd": "true", "deps": deps, "outs": [{str(OUT): {"persist": True}}]}}
    for reader in READERS:
        for kind, dep in (("folder", OUT), ("manifest", OUT / "manifest.csv")):
            target = f"work/{reader}-{kind}.txt"
            found[f"{reader}-{kind}"] = {"cmd": f"echo done > {target}", "deps": [str(dep)], "outs": [target]}
    return found


def contents(form: str, photos: Iterable[int], total: int, changed: int = -1) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the files that hold these photos, of `total` in all; the photo `changed` looks another way."""
    if form == "zip shards":
        for shard in sorted({photo // SHARD for photo in photos}):
            # whole, although perhaps one photo of it is new
            members = range(shard * SHARD, min((shard + 1) * SHARD, total))
            yield f"{shard:04}.zip", zipped(contents("plain files", members, total, changed))
        return
    for photo in photos:
        pages = [pixels(photo, k, photo == changed) for k in range(len(PICTURES))]
        if form == "plain files":
            yield from ((f"{name}/{photo:05}.tif", tiff([page])) for name, page in zip(PICTURES, pages, strict=True))
        else:
            yield f"{photo:05}.tif", tiff(pages)


def write(out: Path, files: Iterable[tuple[str, bytes]]) -> int:
    """Put files below a folder; returns how many bytes."""
    size = 0
    for name, content in files:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        size += (out / name).write_bytes(content)
    return size


def pixels(photo: int, picture: int, version: int) -> NDArray[np.uint16]:
    """Noise of SHAPE that belongs to one picture of one photo."""
    return np.random.default_rng([photo, picture, version]).integers(0, 65536, SHAPE, np.uint16)


def tiff(pages: Iterable[NDArray[np.uint16]]) -> bytes:
    """A TIFF of these pages, deflated as the project does."""
    deflate: dict[str, Any] = {"compression": "zlib", "compressionargs": {"level": 4}, "predictor": 2}
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for page in pages:
            writer.write(page, photometric="rgb", metadata=None, **deflate)
    return buffer.getvalue()


def zipped(files: Iterable[tuple[str, bytes]]) -> bytes:
    """A zip of files as they are: deflated pictures become no smaller."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files:
            archive.writestr(name, content)
    return buffer.getvalue()


def read_milliseconds(form: str, out: Path, photos: int) -> float:
    """Median of READS single reads of a random picture, opened, decoded and closed; files in the page cache."""
    draw, seconds = random.Random(0), []
    for _ in range(READS):
        photo, k = draw.randrange(photos), draw.randrange(len(PICTURES))
        start = time.perf_counter()
        if form == "plain files":
            picture = tifffile.imread(out / PICTURES[k] / f"{photo:05}.tif")
        elif form == "a TIFF a photo":
            picture = tifffile.imread(out / f"{photo:05}.tif", key=k)
        else:
            with zipfile.ZipFile(out / f"{photo // SHARD:04}.zip") as archive:
                picture = tifffile.imread(io.BytesIO(archive.read(f"{PICTURES[k]}/{photo:05}.tif")))
        seconds.append(time.perf_counter() - start)
        if picture.shape != SHAPE:
            raise ValueError(f"{form}: expected a picture of {SHAPE}, got {picture.shape}")
    return 1000 * statistics.median(seconds)
