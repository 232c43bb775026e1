"""files.raw: damaged files are refused in words and cost no more; real ones are as LibRaw's own program shows them."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterable
from functools import cache
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile

from diffretouch.corpus.layout import Photo
from diffretouch.decoding.photo import Settings, decode_photo
from diffretouch.errors import PhotoError
from diffretouch.files import raw
from diffretouch.files.icc import icc
from tests import fake_chain
from tests.mutations import MUTATIONS, mutants
from tests.raw_twins import Twin, smooth_scene, write_twin

WHY = "DIFFRETOUCH_CORPUS names no folder with raw/ and raw_bad/"
CORPUS = Path(os.environ.get("DIFFRETOUCH_CORPUS") or os.devnull)


def corpus(folder: str) -> list[Any]:
    """The parameters of a test over the corpus' files; without a corpus one that is skipped with the reason."""
    found = sorted((CORPUS / folder).iterdir()) if (CORPUS / folder).is_dir() else []
    return [pytest.param(path, id=path.name) for path in found] or [pytest.param(None, marks=pytest.mark.skip(WHY))]


@pytest.mark.parametrize("share", [0, 0.001, 0.05, 0.5, 0.99])
@pytest.mark.parametrize("twin", [Twin(), Twin(nested=True), Twin("linear"), Twin("monochrome")], ids=str)
def test_a_truncated_file_is_said_so(tmp_path: Path, twin: Twin, share: float) -> None:
    path = tmp_path / "twin.dng"
    write_twin(path, twin, smooth_scene())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(PhotoError, match=r"twin\.dng") as caught:
        raw.decode(path)
    assert re.search("ends|beyond|not RAW|Unsupported", str(caught.value))
    assert caught.value.kind == "unreadable"


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("DefaultCropOrigin", "DefaultCropOrigin holds 'd', no number"),
        ("DefaultCropSize", "DefaultCropSize holds 'd', no number"),
        ("BaselineExposure", "BaselineExposure holds 'd', no number"),
        ("StripByteCounts", "int.*str"),
    ],
)
def test_a_dng_whose_own_tags_are_damaged_is_refused_not_guessed(tmp_path: Path, tag: str, said: str) -> None:
    path = tmp_path / "twin.dng"
    write_twin(path, Twin(crop=(2, 2, 60, 40), baseline_exposure=0.5), smooth_scene())
    raw.decode(path)
    with tifffile.TiffFile(path) as tiff:
        entry = tiff.pages.first.tags[tag].offset
    content = bytearray(path.read_bytes())
    struct.pack_into("<HII", content, entry + 2, tifffile.DATATYPE.ASCII, 1, ord("d"))
    path.write_bytes(content)
    with pytest.raises(PhotoError, match=rf"^the DNG tags of twin\.dng are damaged: .*{said}") as caught:
        raw.decode(path)
    assert caught.value.kind == "unreadable"


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match=r"^a0001\.dng is missing$") as caught:
        raw.decode(tmp_path / "a0001.dng")
    assert caught.value.kind == "missing"


def _decode_each(paths: list[Path], answers: Connection) -> None:
    for path in paths:
        try:
            light = raw.decode(path, demosaic="LINEAR", half_size=True).rgb_linear
            answers.send(("picture", str(bool(np.isfinite(light).all() and light.ndim == 3))))
        except PhotoError as refusal:
            answers.send((refusal.kind, str(refusal)))


def decoded_in_a_child(paths: Iterable[Path], limit_s: float = 60) -> dict[str, tuple[str, str]]:
    """By file name: the kind of refusal and its words, or "picture". Fails where the process dies, hangs or raises."""
    files = list(paths)
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    child = context.Process(target=_decode_each, args=(files, writer))
    child.start()
    writer.close()
    found: dict[str, tuple[str, str]] = {}
    try:
        for path in files:
            assert reader.poll(limit_s), f"{path.name} hangs"
            try:
                found[path.name] = reader.recv()
            except EOFError:
                child.join()
                pytest.fail(f"the process died at {path.name} with exit code {child.exitcode}")
    finally:
        child.kill()
        child.join()
    return found


def check_outcomes(found: dict[str, tuple[str, str]]) -> None:
    for name, (kind, words) in found.items():
        assert kind in ("picture", "unreadable", "unstable", "empty", "size"), (name, kind, words)
        assert words == "True" if kind == "picture" else re.search("[a-z]{3}", words), (name, words)


def test_twenty_mutants_are_pictures_or_refusals(tmp_path: Path) -> None:
    sources = []
    for sensor, nested in product(["RGGB", "GMCY", "linear", "monochrome"], [False, True]):
        sources.append(tmp_path / f"{sensor}{nested}.dng")
        write_twin(sources[-1], Twin(sensor, crop=(3, 5, 41, 30), nested=nested), smooth_scene())
    check_outcomes(decoded_in_a_child(_written(tmp_path, sources)))


@pytest.mark.skipif(not CORPUS.is_dir(), reason=WHY)
def test_twenty_mutants_of_the_corpus_are_pictures_or_refusals(tmp_path: Path) -> None:
    check_outcomes(decoded_in_a_child(_written(tmp_path, sorted((CORPUS / "raw").iterdir()))))


def _written(folder: Path, sources: list[Path]) -> list[Path]:
    written = []
    for name, content in mutants(sources, 20, seed=11):
        written.append(folder / name)
        written[-1].write_bytes(content)
    return written


def test_mutants_are_deterministic_and_damaged(tmp_path: Path) -> None:
    sources = [tmp_path / "a.dng", tmp_path / "b.dng"]
    for path, sensor in zip(sources, ("RGGB", "linear"), strict=True):
        write_twin(path, Twin(sensor), smooth_scene())
    twice = [list(mutants(sources, 2 * len(MUTATIONS), seed=1)) for _ in range(2)]
    assert twice[0] == twice[1]
    assert twice[0] != list(mutants(sources, 2 * len(MUTATIONS), seed=2))
    assert twice[0][:3] == list(mutants(sources, 3, seed=1))
    whole = {path.read_bytes() for path in sources}
    assert sum(content in whole for _, content in twice[0]) <= 2  # a header put on its own body
    assert {name.split("-", 1)[1].rsplit("-", 1)[0] for name, _ in twice[0]} == set(MUTATIONS)


def test_fifty_decodings_leak_nothing(tmp_path: Path) -> None:
    whole, half = tmp_path / "whole.dng", tmp_path / "half.dng"
    write_twin(whole, Twin(), smooth_scene(600, 800))
    half.write_bytes(whole.read_bytes()[:500_000])

    def decode_both(times: int) -> None:
        for _ in range(times):
            raw.decode(whole, demosaic="LINEAR")
            with pytest.raises(PhotoError):
                raw.decode(half, demosaic="LINEAR")

    # one lost mosaic or picture a time would be 50 to 300 MB
    assert growth(decode_both, 50)[0] < 40e6


def test_fifty_photos_with_their_experts_leak_nothing(tmp_path: Path) -> None:
    """Those that can be used, and those quarantined for their RAW, for an expert's picture, for one that is no picture.

    Of the small pictures one is the RAW's own, one the guilty expert's, one another expert's.
    """
    size = 400, 600
    write_twin(tmp_path / "whole.dng", Twin(nested=True), smooth_scene(*size))
    write_twin(tmp_path / "plain.dng", Twin(), smooth_scene(*size))
    (tmp_path / "half.dng").write_bytes((tmp_path / "whole.dng").read_bytes()[:250_000])
    fitting = raw.decode(tmp_path / "plain.dng", demosaic="LINEAR").rgb_linear
    good, other, none = tmp_path / "good.tif", tmp_path / "other.tif", tmp_path / "none.tif"
    for path, light in ((good, fitting), (other, fitting[:200])):
        tifffile.imwrite(path, (light * 65535).astype(np.uint16), photometric="rgb", iccprofile=icc("srgb"))
    none.write_bytes(good.read_bytes()[:10_000])
    cases = {
        "used": ("plain.dng", good, ""),
        "RAW": ("half.dng", good, "unreadable"),
        "size": ("whole.dng", other, "size"),
        "no picture": ("plain.dng", none, "unreadable"),
    }
    params = fake_chain.params(decode={"demosaic": "LINEAR"})
    settings = Settings(tmp_path / "out", params.decode, params.corpora["fivek"])

    def decode_all(times: int) -> None:
        for _ in range(times):
            for name, (file, second, kind) in cases.items():
                photo = Photo(name, name, tmp_path / file, {"a": good, "b": second}, None, "", "", "")
                made = decode_photo(photo, settings, lambda _: None)
                assert made.row.get("kind", "") == kind, (name, made.row)
                assert made.files == (f"quarantine/{name}.jpg",) if kind else len(made.files) == 3

    # a picture of 16 bits is 1.4 MB, so that one lost a time would be 72 MB
    memory, open_files = growth(decode_all, 50)
    assert memory < 40e6 and open_files == 0


def growth(work: Callable[[int], None], times: int) -> tuple[int, int]:
    """Bytes of memory and open files that `work(times)` leaves behind, after a few times to warm up."""
    process = psutil.Process()
    work(5)
    before = process.memory_info().rss, process.num_fds()
    work(times)
    return process.memory_info().rss - before[0], process.num_fds() - before[1]


# real RAW files


@cache
def decoded(path: Path) -> raw.RawPhoto:
    return raw.decode(path, baseline_exposure=False)


@pytest.mark.parametrize("path", corpus("raw"))
def test_real_raws_are_pictures_with_facts(path: Path) -> None:
    photo = decoded(path)
    light, facts = photo.rgb_linear, photo.facts
    assert light.dtype == np.float32 and light.ndim == 3 and light.shape[2] == 3
    assert np.isfinite(light).all() and light.min() >= 0 and light.max() <= 1
    assert light.mean() > 0.002 and light.std() > 0.005
    assert facts.mosaic and facts.white_balance in ("as shot", "daylight")
    known = {
        "canon_g1_gmcy.crw": (facts.camera, 200, 8, "2007-11-25T20:27:54"),  # who reads Canon's oldest format knows it
        "nikon_d1_bggr.nef": ("NIKON D1", 200, 0.004, "2000-11-19T13:01:50"),
        "cinema_gbrg.dng": ("Blackmagic Pocket Cinema Camera", 0, 0, ""),
    }
    if path.name in known:
        assert (facts.camera, facts.iso, facts.shutter_s, facts.taken) == known[path.name]


@pytest.mark.skipif(not shutil.which("dcraw_emu"), reason="dcraw_emu (Debian's libraw-bin) is not installed")
@pytest.mark.parametrize("path", corpus("raw"))
def test_real_raws_agree_with_dcraw_emu(path: Path, tmp_path: Path) -> None:
    """LibRaw's own program (an older release in Debian), told what files.raw asks of LibRaw; a DNG's crop by hand."""
    photo = decoded(path)
    # 16-bit linear TIFF, sRGB primaries, AHD, the white level as the file says, clipped highlights
    options = ["-T", "-4", "-o", "1", "-q", "3", "-c", "0", "-H", "0"]
    options += ["-w"] if photo.facts.white_balance == "as shot" else []
    target = tmp_path / "emu.tif"
    subprocess.run(["dcraw_emu", *options, "-Z", str(target), str(path)], check=True, capture_output=True)
    theirs = tifffile.imread(target).astype(np.float32) / 65535
    if path.suffix == ".dng":
        with tifffile.TiffFile(path) as file:
            tags = file.pages.first.tags
            origin, size = (tags[name].value for name in ("DefaultCropOrigin", "DefaultCropSize"))
        (left, top), (width, height) = ((round(pair[0]), round(pair[-1])) for pair in (origin, size))
        theirs = theirs[top : top + height, left : left + width]
    assert theirs.shape == photo.rgb_linear.shape
    assert np.abs(srgb(photo.rgb_linear) - srgb(theirs)).mean() < 0.1 / 255


def srgb(linear: Any) -> Any:
    """IEC 61966-2-1."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)


@pytest.mark.skipif(not CORPUS.is_dir(), reason=WHY)
def test_real_broken_raws_are_refused_in_words(tmp_path: Path) -> None:
    broken = sorted((CORPUS / "raw_bad").iterdir())
    found = decoded_in_a_child(broken)
    assert set(found) == {path.name for path in broken}
    for name, (kind, words) in found.items():
        assert kind == "unreadable", (name, kind)
        assert name in words and re.search("ends too early|beyond|not RAW file", words), (name, words)
