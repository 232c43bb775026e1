"""Registration: shifts are measured whatever the retouching, and nothing is claimed without evidence."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from skimage import data
from skimage.registration import phase_cross_correlation

from diffretouch.registration import check_registration, misregistration

Picture = NDArray[np.float32]
MARGIN = 30
HEIGHT, WIDTH = 300, 400


@cache
def window(dy: float, dx: float) -> Picture:
    """A part of a photo, (H,W,3) sRGB in [0,1], whose content lies dy down and dx to the right of `window(0, 0)`'s."""
    scene = (data.coffee() / 255).astype(np.float32)
    down, right = round(dy), round(dx)
    if (dy, dx) != (down, right):
        scene = ndimage.shift(scene, (dy - down, dx - right, 0), order=3, mode="nearest")
    part = scene[MARGIN - down : MARGIN - down + HEIGHT, MARGIN - right : MARGIN - right + WIDTH]
    return np.clip(part, 0, 1)


PHOTO = window(0, 0)


def vignette(image: Picture) -> Picture:
    y, x = np.ogrid[-1 : 1 : image.shape[0] * 1j, -1 : 1 : image.shape[1] * 1j]
    return image * (1 - 0.45 * (x * x + y * y))[..., None]


def dodge_and_burn(image: Picture) -> Picture:
    stops = np.random.default_rng(1).normal(0, 1, (5, 7))
    return image * 2 ** ndimage.zoom(stops, (image.shape[0] / 5, image.shape[1] / 7), order=3)[..., None]


def noisy(image: Picture) -> Picture:
    return image + np.random.default_rng(2).normal(0, 0.05, image.shape)


def jpeg(image: Picture) -> Picture:
    return imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode((image * 255).astype(np.uint8), level=30)) / 255


RETOUCHING: dict[str, Callable[[Picture], Picture]] = {
    "nothing": lambda image: image,
    "contrast": lambda image: (image - 0.3) * 2.5,
    "darkened": lambda image: image**3,
    "black and white": lambda image: np.repeat(image @ np.float32([0.3, 0.6, 0.1]), 3).reshape(image.shape),
    "toned": lambda image: image ** np.array([0.6, 1.0, 1.8]) * np.array([1.0, 0.9, 0.6]),
    "vignette": vignette,
    "dodged and burnt": dodge_and_burn,
    "softened": lambda image: ndimage.median_filter(image, (5, 5, 1)),
    "sharpened": lambda image: 3 * image - 2 * ndimage.gaussian_filter(image, (1, 1, 0)),
    "noisy": noisy,
    "hard JPEG": jpeg,
}


@pytest.fixture(params=RETOUCHING, scope="module")
def retouch(request: pytest.FixtureRequest) -> Callable[[Picture], Picture]:
    edit = RETOUCHING[request.param]
    return lambda image: np.clip(edit(image), 0, 1).astype(np.float32)


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (0.5, 0), (0, -0.5), (1.5, 0), (0, 2), (-3, 8), (25, -25)])
def test_a_shift_is_measured_through_any_retouching(
    retouch: Callable[[Picture], Picture], dy: float, dx: float
) -> None:
    shift = misregistration(PHOTO, retouch(window(dy, dx)))
    assert shift.certain
    assert (shift.dy, shift.dx) == pytest.approx((dy, dx), abs=0.25)


def test_it_agrees_with_scikit_image_where_nothing_was_retouched() -> None:
    moved = window(-4.25, 2.75)
    back, _, _ = phase_cross_correlation(PHOTO.mean(2), moved.mean(2), upsample_factor=50)
    shift = misregistration(PHOTO, moved)
    assert (-shift.dy, -shift.dx) == pytest.approx(tuple(back), abs=0.1)


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (0.5, 0.5), (-0.8, 0)])
def test_up_to_the_limit_nothing_is_said(retouch: Callable[[Picture], Picture], dy: float, dx: float) -> None:
    assert check_registration(PHOTO, retouch(window(dy, dx)), 1.0) is None


def test_beyond_the_limit_the_reason_says_where_it_lies() -> None:
    reason = check_registration(PHOTO, window(-2, 3), 1.0)
    where = "it is moved 3.0 px to the right and 2.0 px up, more than the 1 px allowed"
    assert reason == f"does not lie on the photo: {where}"
    reason = check_registration(PHOTO, window(1.5, 0), 1.0)
    assert reason is not None and "moved 0.0 px" in reason and "1.5 px down" in reason
    assert check_registration(PHOTO, window(-2, 3), 4.0) is None


def test_grey_and_coloured_pictures_measure_the_same() -> None:
    moved = window(3, -2)
    coloured, grey = misregistration(PHOTO, moved), misregistration(PHOTO.mean(2), moved.mean(2))
    assert (coloured.dy, coloured.dx) == pytest.approx((grey.dy, grey.dx), abs=1e-3)


HELD = {
    "upside down (turned by 180 degrees)": lambda image: image[::-1, ::-1],
    "mirrored left to right": lambda image: image[:, ::-1],
    "mirrored top to bottom": lambda image: image[::-1],
    "turned by 90 degrees": np.rot90,
    "turned by 90 degrees and mirrored": lambda image: np.swapaxes(image, 0, 1),
}


@pytest.mark.parametrize("how", HELD)
def test_a_picture_held_otherwise_is_named(how: str) -> None:
    square = PHOTO[:, : len(PHOTO)]
    expert = vignette(HELD[how](square) ** 2).astype(np.float32)
    assert check_registration(square, expert, 1.0) == f"is {how}"


def fence() -> Picture:
    """Vertical bars 8 px apart: every eighth shift looks alike."""
    bars = 0.5 + 0.4 * np.sin(np.arange(WIDTH) * 2 * np.pi / 8)
    return np.broadcast_to(bars, (HEIGHT, WIDTH)).astype(np.float32)


FOG = {
    "grey": np.full((HEIGHT, WIDTH), 0.5, np.float32),
    "black": np.zeros((HEIGHT, WIDTH), np.float32),
    "slope": np.linspace(0.1, 0.9, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH),
    "fence": fence(),
}


@pytest.mark.parametrize("what", FOG)
def test_without_evidence_nothing_is_claimed(what: str) -> None:
    generator = np.random.default_rng(3)
    photo, expert = (FOG[what] + generator.normal(0, 0.01, (HEIGHT, WIDTH)).astype(np.float32) for _ in range(2))
    assert not misregistration(photo, expert).certain
    assert check_registration(photo, np.roll(expert, 3, axis=1), 1.0) is None


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 8), (5, 300)])
def test_tiny_pictures_are_no_evidence(size: tuple[int, int]) -> None:
    image = np.random.default_rng(4).uniform(0, 1, size).astype(np.float32)
    assert check_registration(image, image[::-1], 1.0) is None


def test_another_photo_is_told_and_an_empty_one_is_not() -> None:
    other = (data.astronaut()[:HEIGHT, :WIDTH] / 255).astype(np.float32)
    assert other.shape == PHOTO.shape
    assert check_registration(PHOTO, other, 1.0) == "shows another photo: nothing of it is found in this one"
    assert check_registration(PHOTO, np.full_like(PHOTO, 0.5), 1.0) is None


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (1, -2), (9, 140), (-61, 3)])
def test_large_pictures_are_measured_to_the_pixel(dy: int, dx: int) -> None:
    scene = ndimage.zoom(data.astronaut()[..., 1] / 255, 3.5, order=1).astype(np.float32)
    scene += ndimage.gaussian_filter(np.random.default_rng(5).normal(0, 0.1, scene.shape), 1).astype(np.float32)
    top, left, size = 100, 200, (1500, 1300)
    photo, expert = (scene[top - y :, left - x :][: size[0], : size[1]] for y, x in ((0, 0), (dy, dx)))
    shift = misregistration(photo, np.clip(expert**2, 0, 1))
    assert shift.certain
    assert (shift.dy, shift.dx) == pytest.approx((dy, dx), abs=0.1)


def test_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one size, got \(300, 400\) and \(299, 400\)"):
        misregistration(PHOTO, PHOTO[1:])
