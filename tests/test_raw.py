"""files.raw: the picture is the scene's light, whatever the RAW's kind; what is damaged is answered with a reason."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rawpy
from skimage.color import deltaE_ciede2000, rgb2xyz, xyz2lab
from skimage.color.colorconv import xyz_from_rgb

from diffretouch.corpus.demo_camera import CAMERAS, PHASES, Camera, Exposure, mosaic, write_dng
from diffretouch.corpus.demo_tables import Draws
from diffretouch.errors import PhotoError
from diffretouch.files import raw
from tests import raw_twins
from tests.raw_twins import CELLS, EXPOSURE, Light, Twin, cropped, smooth_scene, upright, write_twin

INSIDE = (slice(6, -6), slice(6, -6))  # demosaicking guesses at the borders
FLIPS = {1: 0, 2: 1, 3: 3, 4: 2, 5: 4, 6: 6, 7: 7, 8: 5}
# mean absolute error in linear light: 16 bit, four colours through VNG, X-Trans through Markesteijn, 8-bit JPEG
BOUNDS = {"RGBC": 3e-4, "GMCY": 3e-4, "X-Trans": 1e-4, "lossy jpeg": 5e-3}
PLAIN_BOUND = 1e-4


def scene_for(twin: Twin) -> Light:
    """A smooth scene of a size that LibRaw takes for the sensor; on its side where the orientation asks for it."""
    height, width = (512, 520) if twin.sensor == "X-Trans" else (64, 90)
    return smooth_scene(width, height) if twin.orientation >= 5 else smooth_scene(height, width)


def shoot(folder: Path, twin: Twin, scene: Light | None = None, **options: Any) -> raw.RawPhoto:
    """The twin's DNG of the scene (its own by default), decoded."""
    path = folder / "twin.dng"
    write_twin(path, twin, scene_for(twin) if scene is None else scene)
    return raw.decode(path, **options)


def expected(twin: Twin) -> Light:
    """What decoding the twin's own scene must give."""
    light = EXPOSURE * cropped(scene_for(twin), twin)
    return (light @ [0.2126, 0.7152, 0.0722])[..., None].repeat(3, 2) if twin.sensor == "monochrome" else light


def error(photo: raw.RawPhoto, truth: Light) -> float:
    """Mean absolute difference in linear light, without the borders."""
    assert photo.rgb_linear.shape == truth.shape
    assert photo.rgb_linear.dtype == np.float32
    return float(np.abs(photo.rgb_linear - truth)[INSIDE].mean())


# every kind


@pytest.mark.parametrize(("sensor", "nested"), product(CELLS, (False, True)), ids=str)
def test_every_kind_of_sensor_gives_the_scene_back(tmp_path: Path, sensor: str, nested: bool) -> None:
    twin = Twin(sensor, nested=nested)
    photo = shoot(tmp_path, twin)
    assert error(photo, expected(twin)) < BOUNDS.get(sensor, PLAIN_BOUND)
    if sensor in ("linear", "monochrome"):
        assert photo.facts.mosaic == ""
    elif sensor == "RGBC":
        assert re.fullmatch("[GMCY]{4}", photo.facts.mosaic)  # LibRaw has no other letters for four colours
    else:
        assert photo.facts.mosaic == sensor
    assert photo.facts.white_balance == ("none" if sensor == "monochrome" else "as shot")


@pytest.mark.parametrize("twin", [Twin(packing="lossless jpeg"), Twin("linear", packing="lossy jpeg")], ids=str)
def test_compressed_kinds_give_the_scene_back(tmp_path: Path, twin: Twin) -> None:
    assert error(shoot(tmp_path, twin), expected(twin)) < BOUNDS.get(twin.packing, PLAIN_BOUND)


def test_a_compression_that_libraw_does_not_know_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match=r"LibRaw cannot read twin\.dng: .*JPEG XL") as caught:
        shoot(tmp_path, Twin(packing="jpeg xl"))
    assert caught.value.kind == "unreadable"


def test_monochrome_is_grey(tmp_path: Path) -> None:
    red, green, blue = np.moveaxis(shoot(tmp_path, Twin("monochrome")).rgb_linear, 2, 0)
    assert (red == green).all() and (green == blue).all()


@pytest.mark.parametrize("demosaic", ["LINEAR", "VNG", "PPG", "AHD", "DCB", "DHT", "AAHD"])
def test_every_demosaicking_gives_the_scene_back(tmp_path: Path, demosaic: str) -> None:
    assert error(shoot(tmp_path, Twin("GRBG"), demosaic=demosaic), expected(Twin("GRBG"))) < 2e-4


# orientation and crop


@pytest.mark.parametrize(("sensor", "orientation"), product(("RGGB", "linear", "monochrome"), FLIPS), ids=str)
def test_the_orientation_is_applied_once(tmp_path: Path, sensor: str, orientation: int) -> None:
    twin = Twin(sensor, orientation, nested=orientation % 2 == 0)
    photo = shoot(tmp_path, twin)
    assert error(photo, expected(twin)) < PLAIN_BOUND
    assert photo.facts.flip == FLIPS[orientation]


CROPS = [
    Twin(sensor, orientation, margins=margins, crop=crop)
    for sensor, orientation, (margins, crop) in product(
        ("GRBG", "linear", "monochrome"),
        FLIPS,
        [((0, 0, 0, 0), (3, 5, 41, 30)), ((4, 6, 3, 5), (3, 6, 40, 31)), ((5, 3, 2, 4), (3, 5, 41, 30))],
    )
] + [Twin("X-Trans", orientation, margins=(5, 9, 3, 2), crop=(3, 5, 401, 300)) for orientation in (1, 6)]


@pytest.mark.parametrize("twin", CROPS, ids=str)
def test_the_default_crop_is_exact_to_the_pixel(tmp_path: Path, twin: Twin) -> None:
    photo, truth = shoot(tmp_path, twin), expected(twin)
    bound = BOUNDS.get(twin.sensor, PLAIN_BOUND)
    assert error(photo, truth) < bound
    # the scene's slopes are steep enough to tell a pixel
    assert all(np.abs(photo.rgb_linear - np.roll(truth, 1, axis))[INSIDE].mean() > 2 * bound for axis in (0, 1))


@pytest.mark.parametrize("orientation", FLIPS)
def test_a_lone_pixel_at_the_crops_corner_is_the_pictures_corner(tmp_path: Path, orientation: int) -> None:
    lone = np.zeros((30, 40, 3))
    lone[5, 3] = 1
    twin = Twin("linear", orientation, margins=(5, 3, 2, 4), crop=(3, 5, 21, 11))
    photo = shoot(tmp_path, twin, upright(lone, orientation))
    corner = np.zeros((11, 21, 1))
    corner[0, 0] = EXPOSURE
    assert np.abs(photo.rgb_linear - upright(corner, orientation)).max() < 2e-4


@pytest.mark.parametrize(
    ("sensor", "orientation", "crop"),
    product(("RGGB", "GMCY", "linear", "monochrome"), (1, 6), (None, (3, 5, 41, 30), (6, 4, 40, 30))),
    ids=str,
)
def test_half_size_is_half_the_same_picture(
    tmp_path: Path, sensor: str, orientation: int, crop: tuple[int, int, int, int] | None
) -> None:
    twin = Twin(sensor, orientation, crop=crop)
    truth = expected(twin)
    photo = shoot(tmp_path, twin, half_size=True)
    (down, across), full = photo.rgb_linear.shape[:2], truth.shape[:2]
    if sensor in ("linear", "monochrome"):  # LibRaw has nothing to save there
        assert error(photo, truth) < PLAIN_BOUND
        return
    slack = 1 if crop and crop[0] % 2 else 0
    assert abs(down - full[0] / 2) <= slack and abs(across - full[1] / 2) <= slack
    halved = truth[: full[0] // 2 * 2, : full[1] // 2 * 2].reshape(full[0] // 2, 2, full[1] // 2, 2, 3).mean((1, 3))
    rows, columns = min(down, len(halved)), min(across, halved.shape[1])
    # the colours of a cell are taken for being in the same place, and an odd crop falls between two cells
    assert np.abs(photo.rgb_linear[:rows, :columns] - halved[:rows, :columns]).mean() < 0.01


# levels, exposure, white balance


@pytest.mark.parametrize("stops", [0.5, -0.5, 2.0, 0.0, None])
@pytest.mark.parametrize("nested", [False, True])
def test_the_baseline_exposure_is_exact(tmp_path: Path, stops: float | None, nested: bool) -> None:
    twin = Twin(baseline_exposure=stops, nested=nested)
    without, photo = shoot(tmp_path, twin, baseline_exposure=False), shoot(tmp_path, twin)
    assert photo.facts.baseline_exposure == without.facts.baseline_exposure == (stops or 0)
    assert error(without, expected(twin)) < PLAIN_BOUND
    exact = np.minimum(without.rgb_linear * 2 ** (stops or 0), 1)
    assert np.abs(photo.rgb_linear - exact).max() < 1e-6
    assert (photo.rgb_linear.max() == 1) == (stops == 2)


@pytest.mark.parametrize("sensor", ["RGGB", "GMCY", "linear"])
def test_highlights_clip_to_white_and_keep_their_colour_on_demand(tmp_path: Path, sensor: str) -> None:
    glare = np.linspace(0.2, 1.6, 90)[None, :, None] * np.ones((64, 1, 3))
    full = (slice(6, -6), slice(-10, -6))  # where the most sensitive colour is, and the others are not
    assert shoot(tmp_path, Twin(sensor), glare).rgb_linear[full].min() > 0.999
    kept = shoot(tmp_path, Twin(sensor), glare, highlights="Ignore").rgb_linear[full]
    assert np.ptp(kept.mean((0, 1))) > 0.05


LEVELS = [
    Twin(black=(0,), white=4095),
    Twin(black=(127,), white=10007),
    Twin(black=(1031,), white=65535),
    Twin("X-Trans", black=(255,), white=4000),
    Twin("monochrome", black=(127,), white=10007),
    Twin("linear", black=(0,), white=65535),
    Twin("linear", black=(1031,), white=10007),
    Twin("linear", black=(512, 512, 512)),
]


@pytest.mark.parametrize("twin", LEVELS, ids=str)
def test_black_and_white_levels_are_exact(tmp_path: Path, twin: Twin) -> None:
    step = 1 / (twin.white - max(twin.black))
    assert error(shoot(tmp_path, twin), expected(twin)) < PLAIN_BOUND + step


@pytest.mark.parametrize(
    "twin",
    [
        Twin(black=(500, 511, 523, 530), black_cell=(2, 2)),
        Twin("GBRG", black=(500, 523), black_cell=(1, 2), margins=(4, 6, 2, 4)),
        Twin("linear", black=(500, 511, 523)),
    ],
    ids=str,
)
def test_black_levels_of_their_own_leave_no_cast_and_no_grid(tmp_path: Path, twin: Twin) -> None:
    """LibRaw takes one range for all colours, as sensors have it; the DNG's rule differs by these 30 of 16,000."""
    assert error(shoot(tmp_path, twin), expected(twin)) < 1e-3


@pytest.mark.parametrize("sensor", ["RGGB", "X-Trans", "RGBC", "GMCY", "linear"])
@pytest.mark.parametrize("said", ["absent", "only green", "almost nothing", "all ones"])
def test_a_white_balance_that_says_nothing_becomes_daylight(tmp_path: Path, sensor: str, said: str) -> None:
    rest = len(Twin(sensor).planes) - 2
    neutrals: dict[str, tuple[float, ...] | str] = {
        "absent": "absent",
        "only green": (0.0, 1.0, *[0.0] * rest),
        "almost nothing": (0.0001, 1.0, *[0.0001] * rest),
        "all ones": (1.0, 1.0, *[1.0] * rest),
    }
    twin = Twin(sensor, neutral=neutrals[said])
    photo = shoot(tmp_path, twin)
    assert photo.facts.white_balance == "daylight"
    assert error(photo, expected(twin)) < BOUNDS.get(sensor, PLAIN_BOUND)


@pytest.mark.parametrize("sensor", ["BGGR", "GMCY", "linear"])
def test_the_white_balance_as_shot_turns_coloured_light_into_grey(tmp_path: Path, sensor: str) -> None:
    lamp = np.array([1.0, 0.7, 0.4])
    twin = Twin(sensor, neutral=tuple(Twin(sensor).planes @ lamp))
    photo = shoot(tmp_path, twin, 0.6 * lamp * np.linspace(0.2, 1, 90)[None, :, None] * np.ones((64, 1, 1)))
    red, green, blue = photo.rgb_linear[INSIDE].mean((0, 1))
    assert photo.facts.white_balance == "as shot"
    assert red == pytest.approx(green, rel=2e-3) and blue == pytest.approx(green, rel=2e-3)


# facts


@pytest.mark.parametrize("nested", [False, True])
def test_facts_of_a_twin(tmp_path: Path, nested: bool) -> None:
    assert shoot(tmp_path, Twin("BGGR", nested=nested)).facts == raw.RawFacts(
        mosaic="BGGR",
        flip=0,
        white_balance="as shot",
        baseline_exposure=0,
        camera="Twin BGGR",
        lens="Twin 24-70mm f/2.8-4",
        iso=400,
        shutter_s=0.004,
        aperture=5.6,
        focal_mm=35,
        taken="2021-03-04T05:06:07",
    )


def test_a_date_that_no_calendar_has_costs_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_twins, "TAKEN", "9999:99:99 99:99:99")
    facts = shoot(tmp_path, Twin()).facts
    assert (facts.taken, facts.iso, facts.lens) == ("", 400, "Twin 24-70mm f/2.8-4")


@pytest.mark.parametrize(("camera", "phase"), product(CAMERAS, PHASES), ids=str)
def test_facts_of_the_demos_cameras(tmp_path: Path, camera: Camera, phase: str) -> None:
    shot = exposure_of(camera, 0.9, phase, iso=640)
    write_dng(tmp_path / "demo.dng", mosaic(smooth_scene().astype(np.float32), shot, Draws(5)), shot)
    facts = raw.decode(tmp_path / "demo.dng").facts
    assert (facts.mosaic, facts.camera, facts.iso, facts.white_balance) == (phase, camera.model, 640, "as shot")
    assert (facts.lens, facts.shutter_s, facts.aperture, facts.focal_mm, facts.taken) == ("", 0, 0, 0, "")


def test_the_preview_is_the_files_own_jpeg(tmp_path: Path) -> None:
    write_twin(tmp_path / "with.dng", Twin(nested=True), smooth_scene())
    write_twin(tmp_path / "without.dng", Twin(), smooth_scene())
    jpeg = raw.preview(tmp_path / "with.dng")
    assert isinstance(jpeg, bytes) and jpeg[:2] == b"\xff\xd8"
    assert raw.preview(tmp_path / "without.dng") is None


def test_a_preview_of_a_kind_that_rawpy_does_not_know_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(rawpy.RawPy):
        def extract_thumb(self) -> None:
            raise NotImplementedError("thumbnail type: 3")

    write_twin(tmp_path / "with.dng", Twin(nested=True), smooth_scene())
    monkeypatch.setattr(rawpy, "RawPy", Refusing)
    assert raw.preview(tmp_path / "with.dng") is None


# colours, against CIEDE2000 of scikit-image


def lab(rgb_linear: Any) -> Any:
    return xyz2lab(np.asarray(rgb_linear, np.float64) @ xyz_from_rgb.T)


def photographed(path: Path, scene: Light, shot: Exposure) -> Any:
    """The scene's light after the simulated camera (with its noise), a DNG and files.raw; white is again 1."""
    write_dng(path, mosaic(scene.astype(np.float32), shot, Draws(5)), shot)
    return raw.decode(path).rgb_linear / shot.gain


def exposure_of(camera: Camera, gain: float, phase: str = "RGGB", iso: int = 100) -> Exposure:
    red, green, blue = camera.neutral
    return Exposure(camera, phase, 1, gain, (red, green, blue), iso)


@pytest.mark.parametrize(("camera", "exposed"), product(CAMERAS, ((0.25, 100), (0.9, 100), (0.9, 800))), ids=str)
def test_grey_stays_grey(tmp_path: Path, camera: Camera, exposed: tuple[float, int]) -> None:
    gain, iso = exposed  # noise that reaches down to black has a colour: LibRaw cuts it off there
    for grey, phase in zip((0.05, 0.18, 0.45, 0.9), PHASES, strict=True):
        shot = exposure_of(camera, gain, phase, iso)
        seen = photographed(tmp_path / "grey.dng", np.full((96, 96, 3), grey), shot)[INSIDE].mean((0, 1))
        assert deltaE_ciede2000(lab(seen), lab([grey] * 3)) < 0.5


# X-Rite's sRGB values of the ColorChecker Classic's 24 patches, row by row from dark skin to black
COLOR_CHECKER = """
    735244 C29682 627A9D 576C43 8580B1 67BDAA  D67E2C 505BA6 C15A63 5E3C6C 9DBC40 E0A32E
    383D96 469449 AF363C E7C71F BB5695 0885A1  F3F3F2 C8C8C8 A0A0A0 7A7A79 555555 343434
"""


@pytest.mark.parametrize(("camera", "gain"), product(CAMERAS, (0.3, 0.9)), ids=str)
def test_the_chart_comes_back(tmp_path: Path, camera: Camera, gain: float) -> None:
    srgb = np.array([list(bytes.fromhex(patch)) for patch in COLOR_CHECKER.split()]).reshape(4, 6, 3) / 255
    truth = rgb2xyz(srgb) @ np.linalg.inv(xyz_from_rgb).T
    seen = photographed(tmp_path / "chart.dng", truth.repeat(24, 0).repeat(24, 1), exposure_of(camera, gain))
    patches = seen.reshape(4, 24, 6, 24, 3)[:, 6:-6, :, 6:-6].mean((1, 3))
    assert deltaE_ciede2000(lab(patches), lab(truth)).mean() < 1
