"""Style features and their map."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from diffretouch.evaluation.style import FEATURES, describe, nearest, style_space
from diffretouch.stages import embed
from tests import fake_chain


def test_descriptor_sees_colour_and_tone_but_not_place() -> None:
    image = fake_chain.scene(3, 60, 90)
    plain, mirrored = describe(image), describe(image[:, ::-1])
    assert len(plain) == len(FEATURES) == 26
    assert np.allclose(plain, mirrored, rtol=1e-3, atol=2e-2)
    named = dict(zip(FEATURES, describe(np.clip(image * 1.1, 0, 1)) - plain, strict=True))
    assert named["lightness_q50"] > 0
    warm = dict(zip(FEATURES, describe(fake_chain.adjust(image, 1, 1, 1, 0.05)) - plain, strict=True))
    assert warm["b_mean"] > 0


def test_a_grey_picture_has_finite_features() -> None:
    assert np.isfinite(describe(np.full((20, 30, 3), 0.5, np.float32))).all()


def frame(rows: list[tuple[str, str, float]]) -> pd.DataFrame:
    values = pd.DataFrame([[value] * len(FEATURES) for *_, value in rows], columns=list(FEATURES))
    return pd.concat([pd.DataFrame([row[:2] for row in rows], columns=["photo_id", "kind"]), values], axis=1)


def test_style_space_is_free_of_content_and_in_units_of_the_experts() -> None:
    truths = [
        ("p", "ground_truth", 1.0),
        ("p", "ground_truth", 3.0),
        ("q", "ground_truth", 11.0),
        ("q", "ground_truth", 13.0),
    ]
    style = style_space(frame([*truths, ("p", "input", 0.0), ("q", "random_0_1", 12.5)]))
    assert style[:, 0].tolist() == pytest.approx([-1, 1, -1, 1, -2, 0.5])


def test_nearest_neighbour_is_never_oneself() -> None:
    table = frame(
        [("p", "ground_truth", 0.0), ("p", "ground_truth", 2.0), ("p", "input", -1.0), ("p", "random_2_3", -0.8)]
    )
    found = nearest(table, table[[FEATURES[0]]].to_numpy())
    assert found["nearest"].tolist() == ["input", "ground_truth", "ground_truth", "input"]
    assert found["distance"].tolist() == pytest.approx([2, 2, 1, 0.8])


def test_nearest_neighbours_are_those_of_all_distances() -> None:
    rng = np.random.default_rng(4)
    kinds = rng.choice(["ground_truth", "input", "random_0_1"], 60).tolist()
    table = frame([("p", kind, float(value)) for kind, value in zip(kinds, rng.normal(size=60), strict=True)])
    style = rng.normal(size=(60, 5))
    away = np.linalg.norm(style[:, None] - style[None], axis=-1) + np.diag(np.full(60, np.inf))
    found = nearest(table, style)
    truth, source = (away[:, table["kind"] == kind].min(axis=1) for kind in ("ground_truth", "input"))
    assert found["distance"].to_numpy() == pytest.approx(truth)
    assert found["nearest"].tolist() == np.where(truth < source, "ground_truth", "input").tolist()


def test_stage_places_every_picture_of_the_protocol_and_repeats_itself(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    fake_chain.build(tmp_path, "fivek")
    embed.run(fake_chain.params(), "fivek")
    placed = pd.read_csv("reports/fivek/tsne.csv", keep_default_na=False)
    assert placed["kind"].value_counts().to_dict() == {
        "ground_truth": 12,
        "random_0_1": 8,
        "random_1_2": 8,
        "random_2_3": 8,
        "input": 4,
    }
    assert np.isfinite(placed[["x", "y", "distance"]]).all(axis=None)
    manifest = pd.read_parquet("work/decode/fivek/manifest.parquet")
    features = pd.read_parquet("work/embed/fivek/features.parquet")
    for table in (placed, features):
        facts = table[["photo_id", *embed.FACTS]].drop_duplicates()
        expected = manifest[manifest["photo_id"].isin(table["photo_id"])][["photo_id", *embed.FACTS]]
        assert facts.sort_values("photo_id").to_numpy().tolist() == expected.sort_values("photo_id").to_numpy().tolist()
    far = placed.groupby("kind")["distance"].median()
    assert far["random_0_1"] < far["random_1_2"] < far["random_2_3"]
    outputs = [
        tmp_path / "reports/fivek/tsne.csv",
        tmp_path / "reports/fivek/tsne.png",
        *tmp_path.glob("work/embed/**/*.parquet"),
    ]
    before = [path.read_bytes() for path in outputs]
    embed.run(fake_chain.params(), "fivek")
    assert [path.read_bytes() for path in outputs] == before
