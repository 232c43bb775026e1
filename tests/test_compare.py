"""The comparison's own maths and tables: measures against naive ones, targets reached, what makes an arm run again."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
from collections import deque
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from matplotlib import pyplot as plt

from benchmarks.quality import whole_runs
from diffretouch.attributes import ATTRIBUTES, scores
from diffretouch.code import ROOT as PACKAGE
from diffretouch.color import linear_to_srgb
from diffretouch.comparing import adjust, numbers, pictures, schedule
from diffretouch.comparing.arms import CODE, DONE, SPENT, Run, runs, take_views
from diffretouch.comparing.page import render
from diffretouch.comparing.probe import expected_best
from diffretouch.comparing.verdict import verdict
from diffretouch.condition import photo_range
from diffretouch.config import Compare, Params, load
from diffretouch.errors import ConfigError, UserError
from diffretouch.evaluation import control, texture
from diffretouch.files.pictures import write_png8
from diffretouch.files.workspace import training_dir
from diffretouch.training.resume import Stopped
from tests import fake_chain
from tests.import_graph import code_below

ROOT = fake_chain.ROOT


def planes(seed: int, height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(fake_chain.scene(seed, height, width)).permute(2, 0, 1)[None]


# best of N


@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_the_expected_best_is_the_mean_over_every_choice(count: int) -> None:
    values = [3.0, -1.5, 8.25, 8.25, 0.0, 4.5, -7.0]
    naive = np.mean([max(choice) for choice in itertools.combinations(values, count)])
    assert expected_best(values, count) == pytest.approx(naive, rel=1e-12)


def test_the_expected_best_of_many_is_what_many_draws_have_on_average() -> None:
    drawn = np.random.default_rng(0).normal(size=(4000, 128))
    one_choice, expected = drawn[:, :32].max(1), [expected_best(row, 32) for row in drawn]
    # 2.0697: the expected greatest of 32 standard normal numbers (Harter 1961, table 1)
    assert np.mean(expected) == pytest.approx(2.0697, abs=0.01) and np.std(expected) < 0.6 * np.std(one_choice)


@pytest.mark.parametrize("count", [0, 4])
def test_the_best_of_more_than_there_are_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"best of {count} of 3 values: give 1 to 3"):
        expected_best([1.0, 2.0, 3.0], count)


# adjustments


def naive_adjusted(pixel: np.ndarray, values: tuple[float, float, float, float], pivot: float) -> np.ndarray:
    """Of one pixel, channel by channel, from the definition of sRGB."""
    saturation, stops, contrast, warmth = values
    out = []
    for x, gain in zip(pixel, (np.exp(warmth), 1.0, np.exp(-warmth)), strict=True):
        linear = x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4
        light = min(1.0, linear * 2**stops * gain)
        again = 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055
        out.append(pivot + np.exp(contrast) * (again - pivot))
    grey = 0.299 * out[0] + 0.587 * out[1] + 0.114 * out[2]
    return np.clip([grey + np.exp(saturation) * (x - grey) for x in out], 0, 1)


def test_adjustments_are_those_of_a_naive_loop() -> None:
    picture, values = planes(3, 9, 7).double(), (0.3, -0.4, 0.2, 0.15)
    pivot = adjust.pivot_of(picture)
    made = adjust.adjust(picture, torch.tensor([values]).double(), pivot)[0].permute(1, 2, 0).numpy()
    source = picture[0].permute(1, 2, 0).numpy()
    wanted = [[naive_adjusted(pixel, values, float(source.mean())) for pixel in row] for row in source]
    np.testing.assert_allclose(made, wanted, atol=1e-6)
    untouched = adjust.adjust(picture, torch.zeros(1, 4), pivot)
    torch.testing.assert_close(untouched, picture, atol=2e-5, rtol=0)


@pytest.mark.parametrize("size", [64, 200])
def test_asked_for_scores_are_reached_together_at_full_size_too(size: int) -> None:
    """Offsets anywhere within plus or minus a half-range of real size, as measured on three FiveK scenes; scored on a
    square as they are solved on, or on a larger one.
    """
    large = torch.from_numpy(fake_chain.photographs(240)["astronaut"]).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(large, size=(size, size), mode="bilinear", antialias=True)
    half = torch.tensor([0.05, 0.1, 0.2 * float(scores(small, size)[0, 2]), 15.0]).double()
    draw = torch.Generator().manual_seed(0)
    c = torch.rand(16, 4, generator=draw, dtype=torch.float64) * 2 - 1
    own = scores(small, size)[0].double()
    if size == adjust.SIDE:
        solved = adjust.solve(small, own + c * half, half)
        assert solved.missed.abs().max() < 0.01
    made = torch.stack(adjust.vary(large, own + c * half, half, size))
    missed = (scores(made, size).double() - own) / half - c
    assert missed.abs().max() < 0.1 and missed.abs().median() < 0.01


def test_what_cannot_be_reached_is_approached() -> None:
    small = planes(6, 32, 32)
    own = scores(small, 32)[0].double()
    wanted = own[None] + torch.tensor([[0.0, 3.0, 0.0, 0.0]]).double()
    solved = adjust.solve(small, wanted, torch.full((4,), 0.1).double())
    assert torch.isfinite(solved.values).all() and solved.values.abs().max() <= adjust.LIMIT
    assert (solved.missed**2).sum() < (((own - wanted) / 0.1) ** 2).sum()


# texture


def test_light_that_is_multiplied_or_raised_to_a_power_keeps_all_texture() -> None:
    light = fake_chain.scene(1, 40, 50) * 0.5 + 0.2
    grey = light.mean(-1, keepdims=True).repeat(3, -1)
    for before, after in ((light, light * 0.8), (grey, grey**1.4)):
        photo, result = (linear_to_srgb(torch.from_numpy(x)).numpy() for x in (before, after))
        assert texture.survival(photo, result) == pytest.approx(1, abs=1e-4)


def test_texture_is_that_of_a_naive_loop() -> None:
    photo, result = fake_chain.scene(1, 13, 17), fake_chain.scene(2, 13, 17) * 0.5 + fake_chain.scene(1, 13, 17) * 0.5
    photo[3, 4], result[7, 7] = 1.0, 0.01

    def log_light(pixel: np.ndarray) -> float | None:
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in map(float, pixel)]
        return float(np.log(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]))

    def clipped(pixel: np.ndarray) -> bool:
        return min(pixel) < texture.DARKEST or max(pixel) > texture.BRIGHTEST

    pairs = []
    for y, x in itertools.product(range(13), range(17)):
        for v, u in ((y + 1, x), (y, x + 1)):
            if v < 13 and u < 17 and not any(clipped(p[at]) for p in (photo, result) for at in ((y, x), (v, u))):
                pairs.append([log_light(p[v, u]) - log_light(p[y, x]) for p in (photo, result)])
    assert 100 < len(pairs) < 2 * 13 * 17
    assert texture.survival(photo, result) == pytest.approx(np.corrcoef(np.transpose(pairs))[0, 1], abs=1e-5)


def test_a_picture_painted_anew_keeps_less_texture_and_a_black_one_says_nothing() -> None:
    photo = fake_chain.scene(4, 64, 64)
    blurred = torch.nn.functional.avg_pool2d(torch.from_numpy(photo).permute(2, 0, 1), 4)
    blurred = torch.nn.functional.interpolate(blurred[None], size=(64, 64), mode="bilinear")[0].permute(1, 2, 0).numpy()
    assert texture.survival(photo, blurred) < 0.8 < 0.99 < texture.survival(photo, photo * 0.9 + 0.02)
    assert np.isnan(texture.survival(photo, np.zeros_like(photo)))
    with pytest.raises(ValueError, match="differ in size"):
        texture.survival(photo, photo[:-1])


# parameters


def test_arms_are_data_and_their_mistakes_are_named(tmp_path: Path) -> None:
    params = load(ROOT / "params.yaml")
    arm = params.arm("published", 7)
    assert (arm.train.control_loss, arm.train.seed, arm.compare.arms) == ("published", 7, {})
    assert arm.train.validate_every == arm.train.steps == params.compare.arms["published"].train["steps"]
    assert (arm.sample.random_draws, arm.sample.splits) == (1, ("test",))
    assert arm.train.tau == params.train.tau and arm.train.autoencoder == params.train.autoencoder

    def said(change) -> str:
        tree = yaml.safe_load((ROOT / "params.yaml").read_text())
        change(tree["compare"])
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
        with pytest.raises(ConfigError) as caught:
            load(tmp_path / "params.yaml")
        return str(caught.value)

    def train(**changes: object):
        return lambda section: section["arms"]["full"]["train"].update(changes)

    assert "compare.arms.full does not fit: train.control_los: unknown key; did you mean 'control_loss'?" in said(
        train(control_los="none")
    )
    assert "compare.arms.full does not fit: train.control_loss" in said(train(control_loss="mine"))
    assert "autoencoder.step" in said(train(autoencoder={"step": 3}))
    assert "draws 3 is less than best_of 4" in said(lambda section: section.update(best_of=4, draws=3))
    assert "judged names the arm 'fulll', but arms has" in said(lambda section: section.update(judged="fulll"))
    assert "a peer" in said(lambda section: section.update(judged="hdrnet"))
    assert "experts: one is for peers" in said(lambda section: section["arms"]["full"].update(experts="one"))
    assert "should match pattern" in said(lambda section: section["arms"].update({"../x": section["arms"]["full"]}))


def test_a_nested_section_is_changed_in_part() -> None:
    tree = load(ROOT / "params.yaml").model_dump(mode="json")
    tree["compare"]["arms"]["full"]["train"]["autoencoder"] = {"steps": 3}
    params = Params.model_validate(tree)
    assert params.arm("full", 0).train.autoencoder.model_dump() == params.train.autoencoder.model_dump() | {"steps": 3}


# when an arm runs again

OWES_NOTHING = ("config/", "errors.py", "progress.py", "code.py", "processes.py", "worker.py", "torchvision_ops.py")
"""How work is done and what is said meanwhile; parameters are marks of their own."""


STEPS = {step: f"stages.{step}" for step in ("train", "sample", "evaluate")}
STEPS |= {step: f"comparing.{step.replace('-', '_')}" for step in ("peer-train", "peer-sample", "probe")}


@pytest.mark.parametrize("step", CODE)
def test_a_step_depends_on_all_code_that_its_module_imports(step: str) -> None:
    listed = [PACKAGE / name for name in CODE[step]]
    for file in code_below(STEPS[step]):
        inside = file.removeprefix("diffretouch/")
        if inside.endswith(("__init__.py", "page.html")) or inside.startswith(OWES_NOTHING):
            continue
        assert any(PACKAGE / inside == place or place in (PACKAGE / inside).parents for place in listed), (step, file)
    assert all(place.exists() for place in listed)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake_chain.build(tmp_path, "fivek")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def one(params: Params, name: str = "full") -> Run:
    return next(run for run in runs(params, "fivek", 1) if run.name == name)


def changed(**sections: dict) -> Params:
    tree = fake_chain.params().model_dump(mode="json")
    for name, values in sections.items():
        tree[name] |= values
    return Params.model_validate(tree)


def test_only_what_depends_on_a_change_is_done_again(here: Path) -> None:
    run = one(fake_chain.params())
    assert run.todo() == ("train", "sample", "evaluate", "probe")
    run.open()
    for step in run.steps:
        run.finished(step)
    assert run.todo() == ()
    compare = fake_chain.params().compare.model_dump(mode="json")
    for params, todo in (
        (changed(), ()),
        (changed(runtime={"threads": 1, "workers": 7, "processes": 3}, report={"photos": 9}, study={"repeats": 9}), ()),
        (changed(compare=compare | {"photos": 2, "slider": "contrast", "expert": "a"}), ()),
        (changed(train={"validate_every": 33}), ()),
        (changed(train={"tau": 0.3}), run.steps),
        (changed(sample={"axis_points": 9}), run.steps[1:]),
        (changed(evaluate={"bootstrap": 7}), run.steps[2:]),
        (changed(compare=compare | {"best_of": 3}), run.steps[3:]),
        (changed(compare=compare | {"draws": 40}), run.steps[3:]),
    ):
        assert one(params).todo() == todo
    assert one(changed(train={"tau": 0.3})).changed("train") == "train.tau was 0.1, is 0.3"
    assert one(changed(train={"tau": 0.3}), "hdrnet").changed("peer-train") == ""
    assert one(changed(train={"tau": 0.3}), "hdrnet").marks == one(changed(), "hdrnet").marks
    assert one(changed(train={"flips": False}), "hdrnet").marks != one(changed(), "hdrnet").marks

    (here / "work/attributes/fivek/attributes.parquet").touch()
    assert one(changed()).todo() == ()
    with (here / "work/attributes/fivek/scales.json").open("a") as file:
        file.write(" ")
    assert one(changed()).todo() == run.steps
    assert one(changed()).changed("train").startswith("data was ")

    (run.folder / "work/train").mkdir()
    one(changed()).open()
    assert not (run.folder / "work/train").exists() and not (run.folder / DONE).exists()
    assert (run.folder / "work/decode/fivek/manifest.parquet").exists()
    assert yaml.safe_load((run.folder / "params.yaml").read_text())["train"]["seed"] == run.seed


def test_a_step_done_again_takes_the_later_ones_with_it(here: Path) -> None:
    run = one(fake_chain.params())
    run.open()
    for step in run.steps:
        run.finished(step)
    run.finished("sample")
    assert run.todo() == ("evaluate", "probe")


def test_every_arm_trains_in_one_process(here: Path) -> None:
    """Ours would see a batch for each of several, a peer one."""
    many = runs(changed(runtime={"processes": 4, "workers": 3}), "fivek", threads=2)
    assert {(r.params.runtime.threads, r.params.runtime.workers, r.params.runtime.processes) for r in many} == {
        (2, 1, 1)
    }


def test_one_expert_peers_are_told_which(here: Path) -> None:
    params = fake_chain.params()
    assert one(params, "lut3d_one").words("peer-train") == ("peer-train", "fivek", "lut3d", "c")
    assert one(params, "lut3d").words("peer-train") == ("peer-train", "fivek", "lut3d", "")
    assert [one(params, name).words("probe")[2] for name in ("lut3d_one", "lut3d", "full")] == ["c", "", ""]
    other = params.compare.model_dump(mode="json") | {"expert": "a"}
    assert one(changed(compare=other), "lut3d_one").marks != one(params, "lut3d_one").marks
    assert one(changed(compare=other), "lut3d").marks == one(params, "lut3d").marks


# tables and verdict


def test_differences_are_paired_and_the_best_peer_is_the_best_on_average() -> None:
    params = load(ROOT / "params.yaml")
    rng = np.random.default_rng(0)
    rows = [
        {"arm": arm, "seed": seed, "photo_id": f"p{photo}", "metric": metric, "slice": part, "value": value}
        for arm, level in (("mean_expert", 22.0), ("input", 17.0), ("full", 23.0), ("hdrnet", 20.0), ("lut3d", 21.0))
        for seed in ((-1,) if arm in numbers.REFERENCES else (0, 1))
        for photo in range(6)
        for metric in ("psnr", "psnr_best_of")
        for part in ("all", "expert_a")
        for value in [level + photo + rng.normal()]
    ]
    values = pd.DataFrame(rows)
    groups = pd.DataFrame({"photo_id": [f"p{i}" for i in range(6)], "group": [f"g{i // 2}" for i in range(6)]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbers, "read_table", lambda *_: groups)
        table = numbers.summarise(values, params, "fivek", "simulated")
    found = numbers.Numbers(table)
    assert numbers.best_peer(table, params) == "lut3d"
    mean = values.groupby(["arm", "metric", "slice"])["value"].mean()
    for metric, minus in (("psnr", "psnr_minus_best_peer"), ("psnr_best_of", "psnr_best_of_minus_best_peer")):
        own = found.get("full", minus, "expert_a")
        wanted = mean["full", metric, "expert_a"] - mean["lut3d", metric, "expert_a"]
        assert own.mean == pytest.approx(wanted, abs=1e-4) and own.n == 6 and own.groups == 3
        # paired: what photos have in common is gone
        assert own.high - own.low < 2.5
    over_mean = found.get("full", "psnr_minus_mean_expert")
    assert over_mean.mean == pytest.approx(mean["full", "psnr", "all"] - mean["mean_expert", "psnr", "all"], abs=1e-4)
    assert found.get("lut3d", "psnr_minus_best_peer") is None
    by_seed = values[(values["arm"] == "full") & (values["metric"] == "psnr") & (values["slice"] == "all")]
    assert found.seeds("full", "psnr") == pytest.approx(by_seed.groupby("seed")["value"].mean().tolist(), abs=1e-4)
    small = numbers.small(table)
    assert len(small) < len(table) or not table["slice"].str.contains("->").any()
    assert (table["mean"] == table["mean"].round(4)).all() and "provenance" in small


def test_the_best_peer_so_adjusted_is_chosen_expert_by_expert(monkeypatch: pytest.MonkeyPatch) -> None:
    """By PSNR lut3d is the best; with its best of N, hdrnet is nearer to a, csrnet to b, and hdrnet over both."""
    params = load(ROOT / "params.yaml")
    levels = {
        "full": {"psnr": 25.0, "a": 27.0, "b": 23.0},
        "lut3d": {"psnr": 22.0, "a": 23.0, "b": 23.5},
        "hdrnet": {"psnr": 21.0, "a": 26.0, "b": 22.0},
        "csrnet": {"psnr": 20.0, "a": 22.0, "b": 24.0},
        "csrnet_one": {"psnr": 30.0, "a": 30.0, "b": 30.0},
    }
    values = pd.DataFrame(
        {"arm": arm, "seed": 0, "photo_id": photo, "metric": metric, "slice": part, "value": value + shift}
        for arm, own in levels.items()
        for photo, shift in (("p0", -1.0), ("p1", 1.0))
        for metric, part, value in (
            *(("psnr", part, own["psnr"]) for part in ("all", "expert_a", "expert_b")),
            *(("psnr_best_of", f"expert_{x}", own[x]) for x in "ab"),
            ("psnr_best_of", "all", (own["a"] + own["b"]) / 2),
        )
    )
    groups = pd.DataFrame({"photo_id": ["p0", "p1"], "group": ["g0", "g1"]})
    monkeypatch.setattr(numbers, "read_table", lambda *_: groups)
    table = numbers.summarise(values, params, "fivek", "simulated")
    assert numbers.best_peer(table, params) == "lut3d"
    chosen = {part: numbers.best_peer(table, params, "psnr_best_of", part) for part in ("all", "expert_a", "expert_b")}
    assert chosen == {"all": "hdrnet", "expert_a": "hdrnet", "expert_b": "csrnet"}
    found = numbers.Numbers(table)

    def over(arm: str, metric: str) -> dict[str, float]:
        return {part: by.mean for part, by in found.parts(arm, f"{metric}_minus_best_peer").items()}

    assert over("full", "psnr") == dict.fromkeys(("all", "expert_a", "expert_b"), 3.0)
    assert over("full", "psnr_best_of") == {"all": 1.0, "expert_a": 1.0, "expert_b": -1.0}
    # a peer is not compared with itself
    assert over("hdrnet", "psnr_best_of") == {"expert_b": -2.0} and over("lut3d", "psnr") == {}
    assert found.get("full", "psnr_best_of_minus_best_peer", "expert_b", "0").mean == -1.0
    (line,) = [line for line in verdict(found, params.compare, "ours") if "so adjusted" in line.target]
    assert not line.met and "B −1.00" in line.found


def beyond(slope: float, correlation: float) -> float:
    """Of a slope, what the experts' correlation does not explain: all of it where the signs differ."""
    return abs(slope) if slope * correlation < 0 else max(0.0, abs(slope) - abs(correlation))


def test_excess_cross_talk_is_that_of_a_naive_loop(here: Path) -> None:
    truths = pd.read_parquet("work/attributes/fivek/attributes.parquet")
    settings = fake_chain.params().attributes
    ranges = control.half_ranges(truths, settings)
    correlation = control.experts_correlation(truths, ranges)
    rng = np.random.default_rng(0)
    points = np.linspace(-1, 1, 5)
    gains = {photo: rng.normal(0, 0.6, (4, 4)) for photo in truths["photo_id"].unique()}
    rows, wanted = [], {}
    for photo, gain in gains.items():
        own = truths[truths["photo_id"] == photo]
        mid, half = photo_range(torch.tensor(own[[f"score_{a}" for a in ATTRIBUTES]].to_numpy()))
        for i, moved in enumerate(ATTRIBUTES):
            for c in points:
                line = {f"score_{a}": float(mid[j] + half[j] * gain[i, j] * c) for j, a in enumerate(ATTRIBUTES)}
                rows.append({"photo_id": photo, "sweep": f"axis_{moved}", f"c_{moved}": c, **line})
        usable = ranges.set_index("photo_id").loc[photo]
        known = [a for a in ATTRIBUTES if not np.isnan(usable[f"half_{a}"])]
        excess = [
            beyond(gain[ATTRIBUTES.index(a), ATTRIBUTES.index(b)], correlation.loc[a, b])
            for a in known
            for b in known
            if a != b
        ]
        wanted[photo] = float(np.mean(excess))
    table = pd.DataFrame(rows).reindex(
        columns=["photo_id", "sweep", *(f"{k}_{a}" for k in ("c", "score") for a in ATTRIBUTES)]
    )
    found = numbers._moved(table, ranges, correlation)
    every = found[(found["metric"] == "excess_cross_talk") & (found["slice"] == "all")].set_index("photo_id")["value"]
    assert every.to_dict() == pytest.approx(wanted)
    slopes = found[(found["metric"] == "slope") & (found["slice"] == ATTRIBUTES[1])].set_index("photo_id")["value"]
    assert slopes.to_dict() == pytest.approx({p: gains[p][1, 1] for p in slopes.index})


def test_prepared_views_are_taken_whole_or_not_at_all(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs(fake_chain.params(), "fivek", threads=1)[0]
    prepared, own = Path("prepared"), run.folder / training_dir("fivek") / "views"
    for name in ("marks.json", "train/photos.npy"):
        path = prepared / training_dir("fivek") / "views" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)

    link = os.link

    def killed(source: str, target: str) -> None:
        if target.endswith(".npy"):
            raise KeyboardInterrupt
        link(source, target)

    monkeypatch.setattr(os, "link", killed)
    with pytest.raises(KeyboardInterrupt):
        take_views(run, prepared)
    assert not own.exists()
    monkeypatch.setattr(os, "link", link)
    take_views(run, prepared)
    assert sorted(path.name for path in own.rglob("*.*")) == ["marks.json", "photos.npy"]
    assert [path.name for path in own.parent.iterdir()] == ["views"]


def lines_of(settings: Compare, **means: float) -> dict[str, bool]:
    """The verdict on numbers given as arm__metric__slice=mean."""
    rows = []
    for key, mean in means.items():
        arm, metric, part = key.split("__")
        rows.append({"arm": arm, "seed": "all", "metric": metric, "slice": part.replace("_TO_", "->"), "mean": mean})
    table = pd.DataFrame(rows).assign(low=0.0, high=1.0, n=3, groups=2)
    return {
        line.target.split(" ")[0] + str(i): line.met
        for i, line in enumerate(verdict(numbers.Numbers(table), settings, "ours"))
    }


def test_the_verdict_holds_the_targets() -> None:
    settings = load(ROOT / "params.yaml").compare
    good = {
        **{f"full__slope__{a}": 0.7 for a in ATTRIBUTES},
        "full__slope__all": 0.7,
        "published__slope__all": 0.5,
        "full__excess_cross_talk__all": 0.1,
        "full__excess_cross_talk__colorfulness_TO_contrast": 0.1,
        "full__texture__all": 0.99,
        "no_grid__texture__all": 0.6,
        "no_grid__texture_autoencoder__all": 0.7,
        "full__psnr_minus_best_peer__all": 1.2,
        "full__psnr_minus_mean_expert__all": 0.1,
        "full__psnr_best_of_minus_best_peer__expert_a": 0.2,
        "full__psnr_best_of_minus_best_peer__expert_b": 0.1,
    }
    assert list(lines_of(settings, **good).values()) == [True] * 8
    for key, value in {
        "full__slope__contrast": 0.29,
        "published__slope__all": 0.75,
        "full__excess_cross_talk__all": 0.16,
        "full__excess_cross_talk__colorfulness_TO_contrast": 0.16,
        "no_grid__texture__all": 0.995,
        "no_grid__texture_autoencoder__all": 0.995,
        "full__psnr_minus_best_peer__all": 0.99,
        "full__psnr_minus_mean_expert__all": -0.01,
        "full__psnr_best_of_minus_best_peer__expert_b": -0.1,
    }.items():
        assert sum(not met for met in lines_of(settings, **good | {key: value}).values()) == 1, key


def test_the_verdict_counts_seeds_whose_sliders_reach_it_by_themselves() -> None:
    steep = {"0": (0.7, 0.7), "1": (0.65, 0.29), "2": (0.5, 0.5), "all": (0.62, 0.5)}
    rows = [
        {"arm": "full", "seed": seed, "metric": "slope", "slice": part, "mean": mean}
        for seed, (own, least) in steep.items()
        for part, mean in {"all": own, **dict.fromkeys(ATTRIBUTES, own), "contrast": least}.items()
    ]
    table = pd.DataFrame(rows).assign(low=0.0, high=1.0, n=3, groups=2)
    (line,) = verdict(numbers.Numbers(table), load(ROOT / "params.yaml").compare, "ours")
    assert line.met and line.found.endswith("by seed 0.70, 0.65, 0.50: 1 of them by themselves")


def test_two_painted_arms_are_each_named_with_their_autoencoder() -> None:
    settings = load(ROOT / "params.yaml").compare
    tree = settings.model_dump(mode="json")
    tree["arms"]["no_grid_twice"] = tree["arms"]["no_grid"]
    means = {
        ("full", "texture"): 0.9,
        ("no_grid", "texture"): 0.5,
        ("no_grid", "texture_autoencoder"): 0.95,
        ("no_grid_twice", "texture"): 0.6,
        ("no_grid_twice", "texture_autoencoder"): 0.7,
    }
    table = pd.DataFrame(
        {"arm": arm, "seed": "all", "metric": metric, "slice": "all", "mean": mean, "low": 0, "high": 1, "n": 3}
        for (arm, metric), mean in means.items()
    ).assign(groups=2)
    (line,) = verdict(numbers.Numbers(table), Compare.model_validate(tree), "ours")
    assert not line.met and line.found == (
        "0.900 against no_grid 0.500, its autoencoder alone 0.950, no_grid_twice 0.600, its autoencoder alone 0.700"
    )


def test_an_arm_that_names_no_control_loss_has_that_of_training() -> None:
    tree = load(ROOT / "params.yaml").compare.model_dump(mode="json")
    assert Compare.model_validate(tree).other_control("ours") == ["no_control", "published"]
    tree["arms"]["published"]["train"].pop("control_loss")
    tree["arms"]["full"]["train"]["control_loss"] = "ours"
    settings = Compare.model_validate(tree)
    assert settings.other_control("published") == ["no_control", "published", "blind", "no_grid"]
    assert settings.other_control("ours") == ["no_control"]
    table = pd.DataFrame(
        {"arm": arm, "seed": "all", "metric": "slope", "slice": part, "mean": mean, "low": 0, "high": 1, "n": 3}
        for arm, mean in (("full", 0.7), ("published", 0.8), ("hdrnet", 0.9))
        for part in ("all", *ATTRIBUTES)
    ).assign(groups=2)
    steeper = [line for line in verdict(numbers.Numbers(table), settings, "published") if "steeper" in line.target]
    assert [(line.met, line.found) for line in steeper] == [(False, "0.70 against published 0.80")]
    assert not [line for line in verdict(numbers.Numbers(table), settings, "ours") if "steeper" in line.target]


# sheet and page


def shown(folder: Path, count: int) -> list[pictures.Shown]:
    """Photos whose every picture is the same small one."""
    path = folder / "picture.png"
    write_png8(path, fake_chain.scene(0, 20, 30))
    named = tuple((name, path) for name in ("input", "expert C", "full"))
    strips = (("full", ((-1.0, path), (0.0, path), (1.0, path))),)
    return [pictures.Shown(f"p{i}", "", named, named[::2], (0, 0), strips) for i in range(count)]


@pytest.mark.parametrize(("count", "rows"), [(2, 2), (pictures.ROWS + 1, pictures.ROWS)])
def test_the_sheet_shows_so_many_photos_and_no_more(tmp_path: Path, count: int, rows: int) -> None:
    figure = pictures.sheet(shown(tmp_path, count), load(ROOT / "params.yaml"), title="test photos")
    plt.close(figure)
    assert figure.axes[0].images[0].get_array().shape[0] == rows * (pictures.HEIGHT + pictures.GAP)


def page_of(folder: Path, dataset: str, provenance: str, photos: int = 30) -> str:
    card = dict.fromkeys(("name", "licence", "notes", "decode_profile", "decode_settings"), "x")
    card |= {"provenance": provenance, "input": "raw"}
    rows = [("input", "psnr", "all"), ("full", "psnr", "all"), ("hdrnet", "psnr", "all")]
    rows += [(arm, "psnr_best_of", "expert_a") for arm in ("hdrnet", "lut3d")]
    table = pd.DataFrame(
        {"arm": arm, "seed": "all", "metric": metric, "slice": part, "mean": 20.0 + i}
        for i, (arm, metric, part) in enumerate(rows)
    ).assign(low=0.0, high=1.0, n=photos, groups=2)
    return render(dataset, card, load(ROOT / "params.yaml"), table, shown(folder, 1))


def test_the_page_says_what_was_measured_and_what_the_sheet_shows(tmp_path: Path) -> None:
    demo = page_of(tmp_path, "fivek", "simulated")
    assert "about the same CPU time on this corpus" in demo and "quality-fivek.md" in demo
    for page in (page_of(tmp_path, "fivek", "real"), page_of(tmp_path, "ppr10k", "simulated")):
        assert "the same CPU time" not in page and "benchmarks/results" not in page
        assert "as set in <code>compare.arms</code>; what they cost was not measured" in page
    assert "is hdrnet by its PSNR and, by its best of 32, lut3d for A:" in demo
    assert "The first 24 of 30 stand in <code>reports/fivek/compare.png</code>" in demo
    assert "Every test photo stands in" in page_of(tmp_path, "fivek", "simulated", photos=24)


# processes


def job(folder: Path, *steps: tuple[str, ...], **hooks) -> schedule.Job:
    return schedule.Job(folder.name, folder, deque(steps), **hooks)


def test_processes_run_in_order_and_their_cost_is_noted(tmp_path: Path) -> None:
    ended: list[str] = []
    jobs = [job(tmp_path / name, ("profile", "--help"), ("study", "--help"), end=ended.append) for name in ("a", "b")]
    schedule.run_all(jobs, 2, 1, "test")
    assert sorted(ended) == ["profile", "profile", "study", "study"]
    for name in ("a", "b"):
        lines = [json.loads(line) for line in (tmp_path / name / SPENT).read_text().splitlines()]
        assert [(line["step"], line["exit"]) for line in lines] == [("profile", 0), ("study", 0)]
        assert all(0 < line["cpu_s"] < 30 for line in lines)


def test_a_failure_says_what_the_process_said_and_stops_the_others(tmp_path: Path) -> None:
    other = job(tmp_path / "waiting", ("profile", "--help"))
    with pytest.raises(
        UserError, match=r"failing, train ended with exit code 2(?s:.*)log.txt(?s:.*)params.yaml not found"
    ):
        schedule.run_all([job(tmp_path / "failing", ("train", "fivek")), other], 1, 1, "test")
    assert other.process is None


def test_asked_to_stop_it_stops_its_processes_and_leaves_with_143(tmp_path: Path) -> None:
    begun: list[str] = []

    def begin(step: str) -> None:
        begun.append(step)
        signal.raise_signal(signal.SIGTERM)

    sleeping = job(tmp_path / "one", ("profile", "--help"), begin=begin)
    with pytest.raises(Stopped) as caught:
        schedule.run_all([sleeping, job(tmp_path / "two", ("profile", "--help"))], 1, 1, "test")
    assert caught.value.code == 128 + signal.SIGTERM
    assert sleeping.process is not None and sleeping.process.returncode is not None
    assert not (tmp_path / "two").exists() and begun == ["profile"]


def test_a_start_that_fails_lets_the_others_save_and_says_why(tmp_path: Path) -> None:
    """Before a job's first step, before its second, and where what a step cost cannot be noted."""

    def full(step: str) -> None:
        if step == "study":
            raise OSError(errno.ENOSPC, "no space")

    for name, steps in (("first", ["study"]), ("second", ["profile", "study"]), ("noted", ["profile"])):
        other = job(tmp_path / name / "other", *[("profile", "--help")] * 50)
        failing = job(tmp_path / name / "failing", *((step, "--help") for step in steps), begin=full)
        if name == "noted":
            (failing.folder / SPENT).mkdir(parents=True)
        with pytest.raises(IsADirectoryError if name == "noted" else OSError, match=r"no space|Is a directory"):
            schedule.run_all([other, failing], 2, 1, "test")
        assert other.process is not None and other.process.returncode is not None
        lines = [json.loads(line) for line in (other.folder / SPENT).read_text().splitlines()]
        assert lines[-1]["exit"] == other.process.returncode and len(lines) < 50


def test_cpu_time_of_a_step_that_went_on_is_whole_and_run_again_is_another() -> None:
    lines = [
        {"step": step, "cpu_s": seconds, "exit": code}
        for step, seconds, code in (("train", 3.0, 143), ("train", 4.0, 0), ("sample", 1.0, 0), ("train", 9.0, 0))
    ]
    assert whole_runs(lines) == [("train", 7.0), ("sample", 1.0), ("train", 9.0)]
    assert whole_runs([]) == []
