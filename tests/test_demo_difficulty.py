"""The demo's difficulty, fixed before any model work: changing the simulation until a model looks good fails here."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tests.demo_fixture import (
    Measured,
    curve_basis,
    demo_root,
    explained_share,
    fit_lut,
    lut_basis,
    measured,
    psnr,
)

DATASETS = ("fivek", "ppr10k")


@pytest.fixture(scope="session", params=DATASETS)
def photos(request, tmp_path_factory) -> tuple[Measured, ...]:
    return measured(demo_root(tmp_path_factory), request.param)


@pytest.fixture
def test_photos(photos) -> list[Measured]:
    return [photo for photo in photos if photo.test]


def test_input_is_15_to_19_db_from_each_expert(test_photos):
    for expert in range(len(test_photos[0].experts)):
        distance = np.mean([psnr(photo.input, photo.experts[expert]) for photo in test_photos])
        assert 15 <= distance <= 19, f"expert {expert}: {distance:.2f} dB"


def test_experts_are_17_to_20_db_apart(test_photos):
    for one, other in combinations(range(len(test_photos[0].experts)), 2):
        distance = np.mean([psnr(photo.experts[one], photo.experts[other]) for photo in test_photos])
        assert 17 <= distance <= 20, f"experts {one} and {other}: {distance:.2f} dB"


def test_their_mean_is_21_to_24_db_from_each(test_photos):
    for expert in range(len(test_photos[0].experts)):
        distance = np.mean([psnr(photo.mean, photo.experts[expert]) for photo in test_photos])
        assert 21 <= distance <= 24, f"expert {expert}: {distance:.2f} dB"


def test_no_global_curve_or_lut_explains_an_expert(photos, test_photos):
    train = [photo for photo in photos if not photo.test]
    inputs = np.concatenate([photo.input[::9, ::9].reshape(-1, 3) for photo in train])
    cells = lut_basis(inputs)
    for expert in range(len(train[0].experts)):
        target = np.concatenate([photo.experts[expert, ::9, ::9].reshape(-1, 3) for photo in train]).astype(np.float64)
        curves = [np.linalg.lstsq(curve_basis(inputs[:, i]), target[:, i], rcond=None)[0] for i in range(3)]
        lut = fit_lut(cells, target)
        by_curve, by_lut = [], []
        for photo in test_photos:
            pixels, truth = photo.input[::3, ::3].reshape(-1, 3), photo.experts[expert, ::3, ::3].reshape(-1, 3)
            bent = np.stack([curve_basis(pixels[:, i]) @ curves[i] for i in range(3)], 1)
            by_curve.append(psnr(np.clip(bent, 0, 1), truth))
            by_lut.append(psnr(np.clip(lut_basis(pixels) @ lut, 0, 1), truth))
        assert max(np.mean(by_curve), np.mean(by_lut)) <= 25, f"expert {expert}: {np.mean(by_curve):.2f}"


def test_a_global_lut_learns_the_mean_expert_on_unseen_scenes(photos, test_photos):
    """Learnable: what the experts have in common follows from the input."""
    train = [photo for photo in photos if not photo.test]
    inputs = np.concatenate([photo.input[::9, ::9].reshape(-1, 3) for photo in train])
    lut = fit_lut(lut_basis(inputs), np.concatenate([photo.mean[::9, ::9].reshape(-1, 3) for photo in train]))
    reached = [
        psnr(lut_basis(photo.input[::3, ::3].reshape(-1, 3)) @ lut, photo.mean[::3, ::3].reshape(-1, 3))
        for photo in test_photos
    ]
    assert np.mean(reached) >= 23, f"{np.mean(reached):.2f} dB"


def test_c_explains_most_but_not_all_of_the_experts_variance(photos):
    unseen, seen = explained_share(photos)
    print(f"share of the experts' variance that c explains: {unseen:.3f}, on the photos of the fit {seen:.3f}")
    assert 0.6 <= unseen <= 0.82


def test_half_ranges_lie_near_real_ones(photos):
    """Half-ranges: three real FiveK scenes had .09-.15, .03-.10, .0004-.0039, 13-52 mired.

    Contrast grows as the size it is scored at (`attributes.size`) shrinks.
    """
    colorfulness, brightness, contrast, temperature = np.mean([photo.half for photo in photos], axis=0)
    print(f"half-ranges: {colorfulness:.4f}, {brightness:.4f}, {contrast:.5f}, {temperature:.1f} mired")
    assert 0.03 <= colorfulness <= 0.10
    assert 0.06 <= brightness <= 0.13
    assert 0.0004 <= contrast <= 0.0060
    assert 13 <= temperature <= 50


def test_attributes_can_be_told_apart(photos):
    for part in (True, False):
        c = np.concatenate([photo.c for photo in photos if photo.test is part])
        correlation = np.corrcoef(c.T) - np.eye(4)
        print(f"largest correlation: {np.abs(correlation).max():.2f}")
        assert np.abs(correlation).max() < 0.7, correlation.round(2)
