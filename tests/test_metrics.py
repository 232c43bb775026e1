"""Every number against an outsider: another library, a published value, a naive loop."""

from __future__ import annotations

import hashlib

import colour
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from diffretouch import metrics, torchvision_ops
from diffretouch.attributes import ATTRIBUTES
from diffretouch.errors import UserError
from diffretouch.evaluation import control
from diffretouch.evaluation.perceptual import Perceptual
from tests.fake_chain import params, scene

# torchmetrics imports torchvision
torchvision_ops.declare_missing()
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure  # noqa: E402

ONE, OTHER = scene(1, 48, 64), np.clip(scene(1, 48, 64) ** 0.8 + 0.02 * scene(2, 48, 64), 0, 1)


def planes(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].double()


def test_psnr_agrees_with_torchmetrics_and_by_hand() -> None:
    theirs = peak_signal_noise_ratio(planes(ONE), planes(OTHER), data_range=1.0)
    assert metrics.psnr(ONE, OTHER) == pytest.approx(float(theirs), abs=1e-4)
    assert metrics.psnr(np.zeros((4, 4, 3)), np.full((4, 4, 3), 0.1)) == pytest.approx(20.0)
    assert metrics.psnr(ONE, ONE) == pytest.approx(100.0)


def test_ssim_agrees_with_torchmetrics() -> None:
    theirs = structural_similarity_index_measure(planes(ONE), planes(OTHER), data_range=1.0, sigma=1.5)
    assert metrics.ssim(ONE, OTHER) == pytest.approx(float(theirs), abs=2e-3)
    assert metrics.ssim(ONE, ONE) == pytest.approx(1.0)


# Sharma, Wu and Dalal (2005), table 1: pairs 1, 4, 7, 9, 17, 19, 25, 31 and 34
SHARMA = (
    ((50.0000, 2.6772, -79.7751), (50.0000, 0.0000, -82.7485), 2.0425),
    ((50.0000, -1.3802, -84.2814), (50.0000, 0.0000, -82.7485), 1.0000),
    ((50.0000, 0.0000, 0.0000), (50.0000, -1.0000, 2.0000), 2.3669),
    ((50.0000, 2.4900, -0.0010), (50.0000, -2.4900, 0.0009), 7.1792),
    ((50.0000, 2.5000, 0.0000), (73.0000, 25.0000, -18.0000), 27.1492),
    ((50.0000, 2.5000, 0.0000), (56.0000, -27.0000, -3.0000), 31.9030),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((90.9257, -0.5406, -0.9208), (88.6381, -0.8985, -0.7239), 1.5381),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
)


@pytest.mark.parametrize(("one", "other", "published"), SHARMA)
def test_ciede2000_gives_the_published_values(one, other, published) -> None:
    assert metrics.ciede2000(np.array([[one]]), np.array([[other]])) == pytest.approx(published, abs=1e-4)


def test_lab_and_ciede2000_agree_with_colour_science() -> None:
    def theirs(image: np.ndarray) -> np.ndarray:
        return colour.XYZ_to_Lab(colour.sRGB_to_XYZ(image.astype(float)))

    assert np.abs(metrics.lab(ONE) - theirs(ONE)).max() < 0.05
    expected = colour.delta_E(theirs(ONE), theirs(OTHER), method="CIE 2000").mean()
    assert metrics.ciede2000(metrics.lab(ONE), metrics.lab(OTHER)) == pytest.approx(expected, abs=5e-3)


def test_human_centred_metrics_against_a_loop() -> None:
    mask = (np.arange(48 * 64).reshape(48, 64) % 3 == 0).astype(np.float32)
    weight = metrics.human_centred_weight(mask)
    lab_one, lab_other = metrics.lab(ONE), metrics.lab(OTHER)
    squares, lengths = [], []
    for y, x in np.ndindex(48, 64):
        w = 1.0 if mask[y, x] else 0.5
        squares += [(w * float(ONE[y, x, k]) - w * float(OTHER[y, x, k])) ** 2 for k in range(3)]
        lengths.append(
            np.sqrt(sum((w * float(lab_one[y, x, k]) - w * float(lab_other[y, x, k])) ** 2 for k in range(3)))
        )
    assert metrics.psnr_hc(ONE, OTHER, weight) == pytest.approx(-10 * np.log10(np.mean(squares)), abs=1e-4)
    assert metrics.delta_e_hc(lab_one, lab_other, weight) == pytest.approx(np.mean(lengths), rel=1e-4)


def test_group_level_consistency_leaves_out_lone_pictures() -> None:
    found = metrics.group_level_consistency([[1, 10], [3, 14], [7, 7], [5, 5]], ["x", "x", "y", "x"])
    assert found == {"x": pytest.approx((np.var([1, 3, 5], ddof=1) + np.var([10, 14, 5], ddof=1)) / 2)}


def test_bootstrap_resamples_whole_groups() -> None:
    values, groups = [1.0, 1.0, 1.0, 5.0, np.nan], ["a", "a", "a", "b", "b"]
    found = metrics.bootstrap(values, groups, resamples=4000, confidence=0.95, seed=3)
    # two groups: both a (mean 1), both b (mean 5), or one of each (mean 2)
    assert (found.mean, found.low, found.high, found.n, found.groups) == (2.0, 1.0, 5.0, 4, 2)
    assert metrics.bootstrap(values, groups, resamples=4000, confidence=0.95, seed=3) == found
    assert metrics.bootstrap([np.nan], ["a"], resamples=10, confidence=0.95, seed=0).n == 0


def test_bootstrap_agrees_with_scipy_when_every_photo_is_its_own_group() -> None:
    values = np.random.default_rng(0).normal(25, 2, 40)
    ours = metrics.bootstrap(values, [str(i) for i in range(40)], resamples=8000, confidence=0.9, seed=1)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=8000, confidence_level=0.9, method="percentile", rng=1)
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.05)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.05)


def axis_rows(photo_id: str, mid: np.ndarray, half: np.ndarray, slope: np.ndarray, seed: int) -> pd.DataFrame:
    rng, rows = np.random.default_rng(seed), []
    for k, name in enumerate(ATTRIBUTES):
        for c in np.linspace(-1, 1, 7):
            noise = rng.normal(0, 0.2, 4)
            score = mid + half * (slope[k] * c + noise)
            rows.append(
                {"photo_id": photo_id, "sweep": f"axis_{name}"}
                | {f"c_{n}": c if n == name else 0.0 for n in ATTRIBUTES}
                | {f"score_{n}": s for n, s in zip(ATTRIBUTES, score, strict=True)}
            )
    return pd.DataFrame(rows)


def test_slopes_and_ranks_agree_with_numpy_and_scipy() -> None:
    mid, half = np.array([0.3, 0.5, 0.02, 170.0]), np.array([0.1, 0.1, 0.005, 20.0])
    truths = pd.DataFrame(
        {"photo_id": "p", "expert": x} | {f"score_{n}": v for n, v in zip(ATTRIBUTES, mid + sign * half, strict=True)}
        for x, sign in (("a", -1), ("b", 1))
    )
    rows = axis_rows("p", mid, half, np.eye(4) * 0.6 + 0.1, seed=5)
    fitted = control.slopes(control.responses(rows, control.half_ranges(truths, params().attributes)))
    assert len(fitted) == 16
    for line in fitted.to_dict("records"):
        j = ATTRIBUTES.index(line["attribute"])
        own = rows[rows["sweep"] == f"axis_{line['moved']}"]
        c, response = own[f"c_{line['moved']}"], (own[f"score_{line['attribute']}"] - mid[j]) / half[j]
        assert line["slope"] == pytest.approx(np.polyfit(c, response, 1)[0])
        assert line["spearman"] == pytest.approx(stats.spearmanr(c, response).statistic)


def test_photos_whose_experts_agree_say_nothing_about_control() -> None:
    scores = {
        "colorfulness": (0.3, 0.32),
        "brightness": (0.5, 0.509),
        "contrast": (0.0200, 0.0201),
        "temperature": (170, 190),
    }
    truths = pd.DataFrame(
        {"photo_id": "p", "expert": x} | {f"score_{n}": v[k] for n, v in scores.items()} for k, x in enumerate("ab")
    )
    ranges = control.half_ranges(truths, params().attributes).iloc[0]
    assert ranges["half_colorfulness"] == pytest.approx(0.01)
    assert ranges[["half_brightness", "half_contrast"]].isna().all()
    assert ranges["half_temperature"] == pytest.approx(10)
    still = axis_rows("p", np.array([0.31, 0.5, 0.02, 180.0]), np.zeros(4), np.zeros((4, 4)), seed=0)
    fitted = control.slopes(control.responses(still, control.half_ranges(truths, params().attributes)))
    assert set(fitted["moved"]) == {"colorfulness", "temperature"}
    assert (fitted["spearman"] == 0).all()


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    torchvision_ops.declare_missing()
    from torchvision.models import alexnet

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(alexnet(weights=None).state_dict(), path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_lpips_fills_every_weight_of_its_backbone_and_checks_range_and_file(backbone, tmp_path) -> None:
    path, checksum = backbone
    metric = Perceptual("alex", path, checksum)
    state = torch.load(path, weights_only=True)
    for name, value in metric.model.net.state_dict().items():
        assert torch.equal(value, state[f"features.{name.split('.', 1)[1]}"])
    one, other = (planes(image).float() for image in (scene(1, 64, 64), scene(2, 64, 64)))
    assert metric(one, one).item() == pytest.approx(0)
    assert metric(one, other).item() > 0
    with pytest.raises(ValueError, match=r"\[0,1\]"):
        metric(one * 2 - 1, other)
    with pytest.raises(UserError, match="sha256"):
        Perceptual("alex", path, "0" * 64)
    with pytest.raises(UserError, match="lacks"):
        Perceptual("vgg", path, checksum)
    with pytest.raises(UserError, match="not found"):
        Perceptual("alex", tmp_path / "none.pth", checksum)
