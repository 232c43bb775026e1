"""ICC profiles and the sRGB curve, against LittleCMS, colour-science, published numbers and the formula in torch."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import ImageCms

from diffretouch import color
from diffretouch.errors import PhotoError
from diffretouch.files import icc as spaces
from diffretouch.files import pictures
from diffretouch.files.icc import SPACES, Space, from_srgb, icc, to_linear
from diffretouch.files.srgb import light_of_steps, srgb_decode, srgb_encode

STEP = 1 / 65535
NAMES = {"srgb": "sRGB", "prophoto": "ProPhoto RGB", "adobe_rgb": "Adobe RGB (1998)", "display_p3": "Display P3"}


@pytest.fixture(scope="module")
def colours() -> np.ndarray:
    """16-bit colours over the whole cube, close together near black: (1,N,3)."""
    levels = [0, 1, 3, 10, 40, 150, 600, 2000, *range(5461, 65536, 5461)]
    return np.array(list(product(levels, repeat=3)), np.uint16)[None]


def _little_cms(pixels: np.ndarray, source: bytes, target: bytes, dtype: type) -> np.ndarray:
    """LittleCMS asked for every pixel, in floating point."""
    return imagecodecs.cms_transform(
        pixels, source, target, colorspace="rgb", outcolorspace="rgb", outdtype=dtype, intent=1, flags=0x100
    )


def _linear_srgb() -> bytes:
    primaries = [0.64, 0.33, 1.0, 0.30, 0.60, 1.0, 0.15, 0.06, 1.0]
    return imagecodecs.cms_profile("rgb", whitepoint=[0.3127, 0.3290, 1.0], primaries=primaries, gamma=1.0)


# profiles


def test_profiles_are_the_same_bytes_whenever_they_are_made() -> None:
    for space in SPACES:
        first = icc(space)
        icc.cache_clear()
        assert icc(space) == first
        assert first[24:36] == bytes.fromhex("07d000010001000000000000")
        imagecodecs.cms_profile_validate(first)
    assert len({icc(space) for space in SPACES}) == len(SPACES)


@pytest.mark.parametrize(
    ("space", "name", "published"),
    [
        # Adobe RGB (1998) Color Image Encoding, table of the ICC profile encoding
        (
            "adobe_rgb",
            "Adobe RGB (1998)",
            [[0.6097, 0.3111, 0.0195], [0.2053, 0.6257, 0.0609], [0.1492, 0.0632, 0.7446]],
        ),
        # the colorants of Apple's "Display P3" profile
        ("display_p3", "Display P3", [[0.5151, 0.2412, -0.0011], [0.2920, 0.6922, 0.0419], [0.1571, 0.0666, 0.7841]]),
    ],
)
def test_profiles_have_their_published_name_and_numbers(space: Space, name: str, published: list[list[float]]) -> None:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc(space)))
    assert ImageCms.getProfileDescription(profile).strip() == name
    inside: Any = profile.profile
    colorants = [inside.red_colorant[0], inside.green_colorant[0], inside.blue_colorant[0]]
    assert np.abs(np.array(colorants) - published).max() < 1e-4


# to linear light and back


@pytest.mark.parametrize("space", SPACES)
def test_light_agrees_with_little_cms_float(colours: np.ndarray, space: Space) -> None:
    light = to_linear(colours, icc(space))
    exact = _little_cms(colours / 65535, icc(space), _linear_srgb(), np.float64)
    assert np.abs(light - exact).max() < (5e-6 if space == "srgb" else 1e-6)  # the profile rounds the curve of sRGB
    assert (light.min() < -0.2 and light.max() > 1.2) == (space != "srgb")
    inside = ((exact >= 0) & (exact <= 1)).all(-1)
    srgb = _little_cms(colours / 65535, icc(space), icc("srgb"), np.float64)
    assert inside.sum() > 400
    assert np.abs(srgb_encode(light) - srgb)[inside].max() < 2 * STEP


@pytest.mark.parametrize("space", SPACES)
def test_light_and_files_agree_with_colour_science(tmp_path: Path, colours: np.ndarray, space: Space) -> None:
    colour = pytest.importorskip("colour")
    ours, srgb = (colour.RGB_COLOURSPACES[NAMES[name]] for name in (space, "srgb"))
    from_ours, from_srgb_ = (colour.normalised_primary_matrix(s.primaries, s.whitepoint) for s in (ours, srgb))
    whites = [colour.xy_to_XYZ(s.whitepoint) for s in (ours, srgb)]
    adapt = colour.adaptation.matrix_chromatic_adaptation_VonKries(*whites, transform="Bradford")
    matrix = np.linalg.inv(from_srgb_) @ adapt @ from_ours
    gamma = {"prophoto": 1.8, "adobe_rgb": 563 / 256}.get(space)
    values = colours / 65535
    linear = values**gamma if gamma else colour.models.eotf_sRGB(values)
    pictures.write_picture(tmp_path / "a.png", colours, space=space)
    light = pictures.read_linear(tmp_path / "a.png").rgb_linear
    # a profile's numbers are multiples of 1/65536
    assert np.abs(light - linear @ matrix.T).max() < 1e-4

    image = colours.astype(np.float32) / 65535
    back = np.linalg.solve(matrix, colour.models.eotf_sRGB(image).reshape(-1, 3).T).T.reshape(image.shape).clip(0, 1)
    stored = back ** (1 / gamma) if gamma else colour.models.eotf_inverse_sRGB(back)
    bright = back > 1e-3
    assert np.abs(from_srgb(image, space).clip(0, 1) - stored)[bright].max() < 1e-3
    assert np.median(np.abs(from_srgb(image, space).clip(0, 1) - stored)[bright]) < STEP


def test_eight_bit_pictures_have_the_light_of_their_sixteen_bit_twins(colours: np.ndarray) -> None:
    eight = (colours // 257).astype(np.uint8)
    for profile in (*map(icc, SPACES), _look_up_profile()):
        assert (to_linear(eight, profile) == to_linear(eight * np.uint16(257), profile)).all()


def _version_2() -> bytes:
    """Curves of one number, as Adobe's own profiles have them."""
    return imagecodecs.cms_profile("adobergb")


def _tabulated() -> bytes:
    """Three different curves of 300 points, the first of which does not begin at 0."""
    points = np.linspace(0, 1, 300)
    curves = np.stack([0.01 + 0.9 * points**2, points**1.5, 1 - (1 - points) ** 2])
    primaries = [0.7, 0.29, 1.0, 0.2, 0.7, 1.0, 0.14, 0.05, 1.0]
    steps = np.rint(curves * 65535).astype(np.uint16)
    return imagecodecs.cms_profile("rgb", whitepoint=[0.33, 0.34, 1.0], primaries=primaries, transferfunction=steps)


def _look_up_profile() -> bytes:
    """A profile of a table of colours (ICC.1, 10.10, lut16Type), whose channels do not add up."""
    corners = np.random.default_rng(4).integers(0, 32768, (8, 3)).astype(">u2")
    straight = np.array([0, 65535] * 3, ">u2").tobytes()
    identity = struct.pack(">9i", *(np.eye(3, dtype=int) * 65536).ravel().tolist())
    table = b"mft2\0\0\0\0" + bytes([3, 3, 2, 0]) + identity + struct.pack(">HH", 2, 2)
    return spaces._rebuilt(icc("srgb"), "table", {b"A2B0": table + straight + corners.tobytes() + straight})


@pytest.mark.parametrize("make", [_version_2, _tabulated, _look_up_profile])
def test_profiles_of_others_agree_with_little_cms(make: Callable[[], bytes], colours: np.ndarray) -> None:
    profile = make()
    pixels = np.concatenate([colours] * 40)  # several strips
    exact = _little_cms(pixels, profile, _linear_srgb(), np.float32)
    assert np.abs(to_linear(pixels, profile) - exact).max() < 2e-6


def test_a_table_of_colours_is_no_sum_of_its_channels() -> None:
    """Otherwise the test above would not notice a profile that is taken for three curves and a matrix."""
    corners = np.array([[[0, 0, 0], [65535, 0, 0], [0, 65535, 0], [65535, 65535, 0]]], np.uint16)
    black, red, green, both = to_linear(corners, _look_up_profile())[0]
    assert np.abs(red + green - black - both).max() > 0.1


def test_a_grey_profile_makes_neutral_light(tmp_path: Path) -> None:
    profile = imagecodecs.cms_profile("gray", whitepoint=[0.3457, 0.3585, 1.0], gamma=1.8)
    steps = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    tifffile.imwrite(tmp_path / "a.tif", steps, photometric="minisblack", iccprofile=profile)
    light = pictures.read_linear(tmp_path / "a.tif").rgb_linear
    assert np.abs(light - ((steps / 65535) ** 1.8)[..., None]).max() < 5e-5
    assert np.ptp(light, axis=2).max() < 5e-5


def test_a_profile_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    # at black it is infinite, of which LittleCMS makes 1e22
    gamma = b"para\0\0\0\0\0\0\0\0" + struct.pack(">i", -20 * 65536)
    profile = spaces._rebuilt(icc("prophoto"), "endless", dict.fromkeys(spaces.CURVES, gamma))
    pixels = np.zeros((4, 4, 3), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", iccprofile=profile)
    with pytest.raises(PhotoError, match="its ICC profile cannot be used: it leads to light beyond 100"):
        pictures.read_linear(tmp_path / "a.tif")


# the curve


def test_the_curve_agrees_with_the_formula() -> None:
    values = np.concatenate([np.linspace(0, 1, 500_001), [0.04045, 0.0031308, 1e-9]]).astype(np.float32)
    exact = torch.from_numpy(values.astype(np.float64))
    assert np.abs(srgb_encode(values) - color.linear_to_srgb(exact).numpy()).max() < 2e-7
    assert np.abs(srgb_decode(values) - color.srgb_to_linear(exact).numpy()).max() < 2e-7
    steps = torch.arange(65536, dtype=torch.float64) / 65535
    assert (light_of_steps() == color.srgb_to_linear(steps).numpy().astype(np.float32)).mean() > 0.999
    assert np.abs(light_of_steps() - color.srgb_to_linear(steps).numpy()).max() < 1e-7


def test_every_step_comes_back_from_its_light() -> None:
    back = srgb_encode(light_of_steps().reshape(256, 256))
    assert (pictures.to_uint(back, 16).ravel() == np.arange(65536)).all()
    assert (pictures.to_uint(srgb_encode(light_of_steps()[::257]), 8) == np.arange(256)).all()


def test_the_curve_clips_and_may_write_in_place() -> None:
    image = np.random.default_rng(1).uniform(-0.5, 1.5, (300, 500, 3)).astype(np.float32)
    expected = srgb_encode(image.clip(0, 1))
    assert (srgb_encode(image) == expected).all()
    assert srgb_encode(image, out=image) is image
    assert (image == expected).all()
    assert srgb_decode(np.array([-1, 0, 1, 2], np.float32)).tolist() == [0, 0, 1, 1]
