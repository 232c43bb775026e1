"""The decode stage under faults: killed at random moments, and given damaged RAW files."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import chdir
from itertools import product
from pathlib import Path
from typing import Any

import rawpy

from benchmarks import _decode_work
from benchmarks._decode_arms import BASE
from benchmarks._decode_corpora import CARD
from diffretouch.config import Params
from diffretouch.corpus.demo import write_demo
from diffretouch.files import raw
from diffretouch.files.atomic import write_text
from diffretouch.files.pictures import write_picture
from diffretouch.files.srgb import srgb_encode
from diffretouch.files.tables import read_table
from diffretouch.files.workspace import corpus_dir, stage_dir
from diffretouch.stages import decode
from tests.kill import kill_while_decoding
from tests.mutations import MUTATIONS, mutants
from tests.raw_twins import CELLS, Twin, smooth_scene, write_twin

TITLES = {"kills": "kill -9 at random moments, then run again", "mutants": "Damaged RAW files"}
VERSIONS = {"libraw": ".".join(map(str, rawpy.libraw_version)), "rawpy": rawpy.__version__}
PHOTOS, SEED, LONGEST_S = 6, 20, 60.0
CORPUS = Path(os.environ.get("DIFFRETOUCH_CORPUS") or os.devnull)
# LibRaw wants 512 x 512 of an X-Trans sensor
SIZES = {"X-Trans": (512, 516)}


def soak(count: int, files: int) -> dict[str, Any]:
    """Both trials, with so many kills and damaged files."""
    results = {}
    with tempfile.TemporaryDirectory(prefix="soak-") as top, chdir(top):
        print(f"== decode: {count} kills", flush=True)
        results["kills"] = kills(count)
    with tempfile.TemporaryDirectory(prefix="soak-") as top, chdir(top):
        print(f"== decode: {files} damaged files", flush=True)
        results["mutants"] = damaged(files)
    return results


def kills(count: int) -> dict[str, Any]:
    """The stage on PHOTOS demo photos, killed `count` times; AssertionError where it does not end in the same bytes."""
    start = time.perf_counter()
    write_demo(Path("data"), limit=PHOTOS)
    kill_while_decoding(Path.cwd(), count, SEED)
    return {"survived": count, "photos": PHOTOS, "seed": SEED, "seconds": round(time.perf_counter() - start, 1)}


def damaged(count: int) -> dict[str, Any]:
    """The stage on `count` damaged files with experts that fit the whole ones: what became of them."""
    write_damaged(count)
    start = time.perf_counter()
    decode.work = _decode_work.timed  # the stage's own, with a clock
    decode.run(params(), "fivek")
    took = time.perf_counter() - start
    manifest = read_table(stage_dir("decode", "fivek") / "manifest.parquet", ["photo_id", "status", "kind", "reason"])
    if len(manifest) != count:
        sys.exit(f"{count} files were given to the stage, and its manifest has {len(manifest)} rows")
    times = [json.loads(line) for line in _decode_work.TIMES.read_text().splitlines()]
    slowest = max(times, key=lambda line: line["seconds"])
    given_up = manifest["reason"].str.contains("it took more than").sum()
    if slowest["cpu_seconds"] > LONGEST_S:
        sys.exit(f"{slowest['photo']} took {slowest['cpu_seconds']:.0f} s")
    crashed = manifest[manifest["kind"] == "crashed"]
    previewed = sorted(path.name for path in Path("whole").iterdir() if raw.preview(path) is not None)
    of_previewed = sum(path.name.endswith(tuple(f"-{name}" for name in previewed)) for path in damaged_files())
    by_damage = Counter((name.split("-", 1)[1], status) for name, status in _damages(manifest))
    return {
        "files": count,
        "sources": sorted(path.name for path in Path("whole").iterdir()),
        "sources with a preview": previewed,
        "files damaged from those": of_previewed,
        "seed": SEED,
        "seconds": round(took, 1),
        "decoded": int((manifest["status"] == "ok").sum()),
        "quarantined by kind": manifest.loc[manifest["status"] == "quarantined", "kind"].value_counts().to_dict(),
        "quarantined with a small picture": len(list((stage_dir("decode", "fivek") / "quarantine").iterdir())),
        "by damage": {f"{damage}: {status}": number for (damage, status), number in sorted(by_damage.items())},
        "processes lost": dict(zip(crashed["photo_id"], crashed["reason"], strict=True)),
        "given up after cpu_seconds": int(given_up),
        "slowest that came back, seconds": round(slowest["seconds"], 2),
        "slowest that came back, CPU seconds": round(slowest["cpu_seconds"], 2),
        "slowest that came back": slowest["photo"],
    }


def write_damaged(count: int) -> None:
    """data/fivek of `count` damaged RAWs; an expert's picture is what the whole file would have developed to."""
    root = corpus_dir("fivek")
    (root / "dng").mkdir(parents=True)
    sources = {path.name: path for path in whole_files()}
    for path in sources.values():
        picture = srgb_encode(raw.decode(path, demosaic=BASE.decode.demosaic).rgb_linear)
        write_picture(Path("experts") / f"{path.stem}.tif", picture)
    for folder in ("tiff16_a", "tiff16_b"):
        (root / folder).mkdir()
    for name, content in mutants(list(sources.values()), count, SEED):
        (root / "dng" / name).write_bytes(content)
        source = next(path for path in sources.values() if name.endswith(f"-{path.name}"))
        for folder in ("tiff16_a", "tiff16_b"):
            os.link(Path("experts") / f"{source.stem}.tif", root / folder / f"{Path(name).stem}.tif")
    write_text(root / "corpus.yaml", CARD)


def damaged_files() -> list[Path]:
    """As `write_damaged` left them."""
    return sorted((corpus_dir("fivek") / "dng").iterdir())


def whole_files() -> Iterator[Path]:
    """A twin of every kind of sensor, as a camera and as Adobe's converter write it, with a preview; the corpus's."""
    Path("whole").mkdir()
    for sensor, nested in product(CELLS, (False, True)):
        path = Path("whole") / f"twin_{sensor}{'_preview' if nested else ''}.dng"
        write_twin(path, Twin(sensor, nested=nested), smooth_scene(*SIZES.get(sensor, (64, 96))))
        yield path
    for path in sorted((CORPUS / "raw").iterdir()) if (CORPUS / "raw").is_dir() else []:
        place = Path("whole") / path.name
        place.symlink_to(path.resolve())
        yield place


def params() -> Params:
    """params.yaml's, for two experts and any number of damaged files."""
    tree = BASE.model_dump(mode="json")
    tree["corpora"]["fivek"]["experts"] = ["a", "b"]
    tree["decode"] |= {"max_quarantined_share": 1.0, "cpu_seconds": int(LONGEST_S)}
    return Params.model_validate(tree)


def _damages(manifest: Any) -> Iterator[tuple[str, str]]:
    for photo_id, status in zip(manifest["photo_id"], manifest["status"], strict=True):
        number = photo_id.split("-", 1)[0]
        yield f"{number}-{list(MUTATIONS)[int(number) % len(MUTATIONS)]}", status
