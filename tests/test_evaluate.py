"""The evaluate stage on a small real chain on disk."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from diffretouch.attributes import ATTRIBUTES
from diffretouch.errors import UserError
from diffretouch.evaluation import measure, summary
from diffretouch.evaluation.measure import Photo, Ruler, Sampled
from diffretouch.files.pictures import read_srgb, write_png8
from diffretouch.metrics import psnr
from diffretouch.stages import evaluate
from tests import fake_chain


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A folder in which both datasets were evaluated, ppr10k with two workers."""
    root = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for dataset, workers in (("fivek", 1), ("ppr10k", 2)):
            fake_chain.build(root, dataset)
            evaluate.run(fake_chain.params(runtime={"workers": workers}), dataset)
    return root


def table(root, dataset: str) -> pd.DataFrame:
    return pd.read_parquet(root / f"work/evaluate/{dataset}/per_sample.parquet")


def lines(root, dataset: str) -> pd.DataFrame:
    return pd.read_csv(root / f"reports/{dataset}/metrics.csv")


def one(frame: pd.DataFrame, row: str, metric: str, part: str = "all") -> pd.Series:
    found = frame[(frame["row"] == row) & (frame["metric"] == metric) & (frame["slice"] == part)]
    assert len(found) == 1
    return found.iloc[0]


def test_every_picture_is_compared_with_the_experts_it_should_be(chain) -> None:
    counts = table(chain, "fivek").groupby("sweep").size()
    photos, experts, draws = 4, 3, fake_chain.DRAWS
    assert counts["expert"] == counts["input"] == counts["mean_expert"] == counts["neutral"] == photos * experts
    assert counts["random_1_2"] == photos * draws * experts
    assert counts["axis_contrast"] == photos * fake_chain.POINTS
    axis = table(chain, "fivek").query("sweep == 'axis_contrast'")
    assert axis[["psnr", "ssim", "ciede2000"]].isna().all(axis=None)
    assert axis["score_contrast"].notna().all()


def test_every_row_carries_the_facts_of_its_photo(chain) -> None:
    manifest = pd.read_parquet(chain / "work/decode/fivek/manifest.parquet").set_index("photo_id")
    rows = table(chain, "fivek")
    assert list(rows.columns[:6]) == ["photo_id", "split", "group", "licence", "camera", "categories"]
    for name in rows.columns[1:6]:
        assert (rows[name] == rows["photo_id"].map(manifest[name])).all()
    assert rows.query("sweep == 'input'")["camera"].nunique() == 2


def test_slices_are_the_photos_of_one_camera_and_of_one_category(chain) -> None:
    rows, metrics = table(chain, "fivek"), lines(chain, "fivek")
    for part, chosen in (
        ("camera_Sim 1", rows["camera"] == "Sim 1"),
        ("category_outdoors", rows["categories"].str.contains("outdoors")),
        ("category_night1", rows["group"] == "group1"),
    ):
        for row in summary.SLICED:
            for metric in ("psnr", "ssim", "ciede2000"):
                own = rows[chosen & (rows["sweep"] == row)]
                found = one(metrics, row, metric, part)
                assert found["mean"] == pytest.approx(own.groupby("photo_id")[metric].mean().mean(), abs=1e-4)
                assert (found["n"], found["groups"]) == (own["photo_id"].nunique(), own["group"].nunique())
                # one scene cannot be resampled
                assert pd.isna(found["low"]) == pd.isna(found["high"]) == (part == "category_night1")
    parts = {part for part in metrics["slice"] if part.startswith(("camera_", "category_"))}
    assert parts == {"camera_Sim 0", "camera_Sim 1", "category_outdoors", "category_night0", "category_night1"}


def test_photos_without_camera_or_category_are_in_no_slice() -> None:
    rows = pd.DataFrame({"photo_id": ["p", "q", "q", "r"], "sweep": "expert", "psnr": [20.0, 30.0, 32.0, 40.0]})
    rows = rows.assign(camera=["", "X", "X", "X"], categories=["day  sky", "", "", "sky"])
    estimate = summary.estimator({"p": "1", "q": "2", "r": "3"}, fake_chain.params().evaluate)
    found = {part: (interval.mean, interval.n) for _, part, _, interval in summary.slice_lines(rows, estimate)}
    assert found == {"camera_X": (35.5, 2), "category_day": (20.0, 1), "category_sky": (30.0, 2)}


def test_seeds_of_64_bits_come_through_and_references_have_none(chain) -> None:
    rows = table(chain, "fivek")
    samples = pd.read_parquet(chain / "work/sample/fivek/samples.parquet")
    assert set(rows["seed"].dropna().astype(int)) == set(samples["seed"])
    assert rows.query("sweep == 'input'")["seed"].isna().all()


def test_numbers_agree_with_a_second_measurement(chain) -> None:
    decoded = chain / "work/decode/fivek"
    line = pd.read_parquet(decoded / "manifest.parquet").iloc[1]
    experts = {x: read_srgb(decoded / line[f"expert_{x}"]) for x in "abc"}
    rows = table(chain, "fivek").query(f"photo_id == '{line['photo_id']}'").set_index(["sweep", "expert"])
    mean = np.mean([image.astype(np.float64) for image in experts.values()], axis=0)
    for x, image in experts.items():
        assert rows.loc[("mean_expert", x), "psnr"].item() == pytest.approx(psnr(mean, image), abs=1e-3)
        assert rows.loc[("input", x), "psnr"].item() == pytest.approx(psnr(read_srgb(decoded / line["input"]), image))


def test_headlines_are_the_forty_numbers_of_the_design(chain) -> None:
    tree = json.loads((chain / "reports/fivek/metrics.json").read_text())
    assert list(tree) == ["test"]
    assert list(tree["test"]) == [*summary.ROWS, "control"]
    leaves = [value for row in tree["test"].values() for metric in row.values() for value in metric.values()]
    assert len(leaves) == 40
    assert all(value == round(value, 4) for value in leaves)
    assert tree["test"]["expert"]["psnr"]["n"] == 4
    assert tree["test"]["expert"]["psnr"]["groups"] == 2


def test_rows_average_within_a_photo_before_over_photos(chain) -> None:
    rows, metrics = table(chain, "fivek"), lines(chain, "fivek")
    expected = rows.query("sweep == 'random_0_1'").groupby("photo_id")["psnr"].mean().mean()
    assert one(metrics, "random_0_1", "psnr")["mean"] == pytest.approx(expected, abs=1e-4)
    best = rows.query("sweep == 'random_0_1'").groupby(["photo_id", "expert"])["psnr"].max().mean()
    assert one(metrics, "random_0_1", f"psnr_best_of_{fake_chain.DRAWS}")["mean"] == pytest.approx(best, abs=1e-4)
    gain = one(metrics, "expert_minus_input", "psnr")
    assert gain["mean"] == pytest.approx(
        one(metrics, "expert", "psnr")["mean"] - one(metrics, "input", "psnr")["mean"], abs=2e-4
    )
    assert gain["low"] <= gain["mean"] <= gain["high"]
    assert (metrics["provenance"] == "simulated").all()


def test_share_of_the_experts_variance_is_one_minus_a_ratio_of_squared_errors(chain) -> None:
    rows = table(chain, "fivek")
    mean_mse = rows.assign(mse=10 ** (-rows["psnr"] / 10)).groupby(["sweep", "photo_id"])["mse"].mean()
    share = (1 - mean_mse["expert"] / mean_mse["mean_expert"]).mean()
    assert one(lines(chain, "fivek"), "expert", "variance_share")["mean"] == pytest.approx(share, abs=1e-4)
    assert 0 < share < one(lines(chain, "fivek"), "expert", "style_variance_share")["mean"] <= 1


def test_control_finds_the_law_of_the_fixture(chain) -> None:
    metrics = lines(chain, "fivek")
    for name in ATTRIBUTES:
        assert one(metrics, "control", "slope", name)["mean"] > 0.3
        assert one(metrics, "control", "spearman", name)["mean"] > 0.95
        own = one(metrics, "cross_talk", "absolute_slope", f"{name}->{name}")
        assert own["mean"] == pytest.approx(one(metrics, "control", "slope", name)["mean"], abs=1e-4)


def test_the_experts_correlation_has_no_interval_and_counts_its_photos(chain) -> None:
    metrics = lines(chain, "fivek")
    known = metrics[metrics["metric"] == "experts_correlation"]
    assert len(known) and known[["low", "high"]].isna().all(axis=None)
    assert known["n"].between(1, 4).all() and known["groups"].between(1, 2).all()
    assert not set(known["slice"]) & {f"{name}->{name}" for name in ATTRIBUTES}
    text = (chain / "reports/fivek/metrics.csv").read_text()
    assert all(",,," in line for line in text.splitlines() if "experts_correlation" in line)


def test_weights_are_read_once_a_process(monkeypatch, tmp_path) -> None:
    built = []
    monkeypatch.setattr(measure, "Perceptual", lambda *given: built.append(given) or object())
    measure._perceptual.cache_clear()
    first, again = (measure._perceptual("alex", tmp_path / "weights.pth", "0") for _ in range(2))
    measure._perceptual.cache_clear()
    assert first is again and len(built) == 1


def test_masks_bring_the_human_centred_metrics(chain) -> None:
    metrics = lines(chain, "ppr10k")
    assert one(metrics, "expert", "psnr_hc")["mean"] > one(metrics, "expert", "psnr")["mean"]
    assert one(metrics, "input", "glc")["mean"] > 0
    assert not set(lines(chain, "fivek")["metric"]) & {"psnr_hc", "delta_e_hc", "glc"}


def test_without_weights_there_is_no_lpips_and_it_says_so(chain) -> None:
    assert "lpips" not in set(lines(chain, "fivek")["metric"])
    assert evaluate._lpips(fake_chain.params().evaluate, "fivek") is None


def test_results_do_not_depend_on_the_number_of_workers(chain, monkeypatch) -> None:
    monkeypatch.chdir(chain)
    kept = ("reports/ppr10k/metrics.csv", "reports/ppr10k/metrics.json", "work/evaluate/ppr10k/per_sample.parquet")
    before = [(chain / name).read_bytes() for name in (*kept, "reports/ppr10k/psnr.png", "reports/ppr10k/control.png")]
    evaluate.run(fake_chain.params(runtime={"workers": 1}), "ppr10k")
    after = [(chain / name).read_bytes() for name in (*kept, "reports/ppr10k/psnr.png", "reports/ppr10k/control.png")]
    assert after == before


def test_a_result_of_another_size_is_named(chain, tmp_path) -> None:
    wrong = tmp_path / "small.png"
    write_png8(wrong, np.zeros((20, 30, 3), np.float32))
    decoded = chain / "work/decode/fivek"
    line = pd.read_parquet(decoded / "manifest.parquet").iloc[0]
    experts = {x: decoded / line[f"expert_{x}"] for x in "abc"}
    photo = Photo("p", decoded / line["input"], experts, None, (Sampled(0, "neutral", None, wrong),))
    with pytest.raises(UserError, match=r"small.png is 30x20, its photo 60x40"):
        measure.measure(photo, Ruler(48, None))
