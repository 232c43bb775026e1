"""The demo's DNGs are genuine: LibRaw finds the phase, the rotation, the white balance and the scene."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import rawpy

from diffretouch.corpus.demo_camera import CAMERAS, PHASES, TURNS, Exposure, mosaic, write_dng
from diffretouch.corpus.demo_paint import clouds
from diffretouch.corpus.demo_tables import Draws
from diffretouch.files.raw import decode

FLIP = {1: 0, 3: 3, 6: 6, 8: 5}


def scene(size: tuple[int, int]) -> np.ndarray:
    """A smooth, lopsided scene, so that a wrong turn or phase shows."""
    draws = Draws(3)
    channels = [np.float32(0.15) + np.float32(0.6) * clouds(draws, size, 2, 2) for _ in range(3)]
    return np.stack(channels, axis=2).astype(np.float32)


@pytest.mark.parametrize(("phase", "orientation", "camera"), product(PHASES, TURNS, CAMERAS), ids=str)
def test_libraw_gives_the_scene_back(tmp_path, phase, orientation, camera):
    size = (96, 64) if orientation in (6, 8) else (64, 96)
    red, green, blue = camera.neutral
    shot = Exposure(camera, phase, orientation, 0.9, (red, green, blue), 100)
    truth = scene(size)
    path = tmp_path / "photo.dng"
    write_dng(path, mosaic(truth, shot, Draws(1)), shot)
    with rawpy.imread(str(path)) as raw:
        pattern = "".join("RGBG"[i] for i in raw.raw_pattern.flat)
        assert pattern == phase
        assert raw.sizes.flip == FLIP[orientation]
        assert raw.camera_whitebalance[:3] == pytest.approx([1 / red, 1, 1 / blue], rel=1e-3)
        assert raw.white_level == 16383
        assert raw.black_level_per_channel == [512] * 4
    photo = decode(path)
    assert photo.facts.mosaic == phase
    assert photo.rgb_linear.shape == truth.shape
    inside = (slice(6, -6), slice(6, -6))
    assert np.abs(photo.rgb_linear[inside] - 0.9 * truth[inside]).mean() < 0.006


def test_a_wrong_neutral_tints_the_picture(tmp_path):
    camera = CAMERAS[0]
    red, green, blue = camera.neutral
    shot = Exposure(camera, "RGGB", 1, 0.9, (red * 1.06, green, blue), 100)
    grey = np.full((64, 96, 3), 0.4, np.float32)
    write_dng(tmp_path / "photo.dng", mosaic(grey, shot, Draws(1)), shot)
    means = decode(tmp_path / "photo.dng").rgb_linear.mean((0, 1))
    assert means[0] < 0.97 * means[1]
