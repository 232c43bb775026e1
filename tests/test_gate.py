"""The gate on real tables of the real evaluate stage: every decision, every rule, the words, and the page."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from diffretouch import cli
from diffretouch.errors import UserError
from diffretouch.files.pictures import read_srgb
from diffretouch.gating import Verdict, costs, judge, measures, rules
from diffretouch.gating.licence import allows
from diffretouch.gating.measures import Line
from diffretouch.gating.pictures import clipped
from diffretouch.metrics import Interval, bootstrap, psnr
from diffretouch.model.build import new_autoencoder, new_pipeline
from diffretouch.study.page import key_table
from diffretouch.study.pairs import named, plan
from tests import browser, fake_chain, gate_trees
from tests.gate_trees import DATASET, nearer, params, truth
from tests.test_model import tiny_train

ROOT = fake_chain.ROOT


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> dict[str, Path]:
    """The model in use, and a challenger of each kind; no test changes them."""
    folder = tmp_path_factory.mktemp("gate")
    changes = {"champion": None, "better": nearer(0.4), "worse": nearer(-0.4)}
    return {name: gate_trees.build(folder / name, change) for name, change in changes.items()}


def told(verdict: Verdict, rule: str):
    found = [reason for reason in verdict.reasons if reason.rule == rule]
    assert len(found) == 1, [reason.rule for reason in verdict.reasons]
    return found[0]


def table(root: Path, stage: str, name: str) -> Path:
    return root / "work" / stage / DATASET / name


def test_a_better_challenger_is_promoted(trees, tmp_path) -> None:
    verdict = judge(params(), DATASET, trees["better"], trees["champion"], tmp_path)
    assert (verdict.decision, verdict.promoted, verdict.broken) == ("promote", True, ())
    assert re.fullmatch(
        r"The challenger takes the champion's place: \+\d\.\d\d \[\+\d\.\d\d, \+\d\.\d\d\] dB on 6 test photos of 3 "
        r"scenes, and every rule is kept\.",
        verdict.summary,
    )
    tree = json.loads((tmp_path / "verdict.json").read_text())
    assert (tree["decision"], tree["summary"], tree["use"]) == ("promote", verdict.summary, "research")
    assert (tree["photos"], tree["scenes"], tree["compared_with_a_champion"]) == (6, 3, True)
    assert [rule["rule"] for rule in tree["rules"]] == [reason.rule for reason in verdict.reasons]
    assert [rule["rule"] for rule in tree["rules"] if rule["passed"] is None] == [
        "same code",
        "cost: speed and memory",
        "study",
    ]


def test_numbers_agree_with_a_second_measurement(trees, tmp_path) -> None:
    judge(params(), DATASET, trees["better"], trees["champion"], tmp_path)
    values = {}
    for name in ("better", "champion"):
        samples = pd.read_parquet(table(trees[name], "sample", "samples.parquet"))
        for _, row in samples[samples["sweep"] == "expert"].iterrows():
            picture = read_srgb(trees[name] / "work/sample" / DATASET / row["path"])
            values[name, row["photo_id"], row["expert"]] = psnr(
                picture, truth(row, trees[name] / "work/decode" / DATASET)
            )
    photos = sorted({photo for _, photo, _ in values})
    apart = [
        np.mean([values["better", p, x] - values["champion", p, x] for x in fake_chain.EXPERTS[DATASET]])
        for p in photos
    ]
    groups = pd.read_parquet(table(trees["better"], "decode", "manifest.parquet")).set_index("photo_id")["group"]
    settings = params().evaluate
    expected = bootstrap(
        apart, [groups[p] for p in photos], resamples=settings.bootstrap, confidence=0.95, seed=settings.seed
    )
    tree = json.loads((tmp_path / "verdict.json").read_text())
    line = next(n for n in tree["numbers"] if (n["measure"], n["slice"]) == ("psnr", "all"))
    assert (line["n"], line["groups"]) == (6, 3)
    for key, value in (("difference", expected.mean), ("low", expected.low), ("high", expected.high)):
        assert line[key] == pytest.approx(value, abs=2e-4)
    assert line["challenger"] - line["champion"] == pytest.approx(line["difference"], abs=2e-4)
    slope = next(n for n in tree["numbers"] if (n["measure"], n["slice"]) == ("slope", "brightness"))
    metrics = pd.read_csv(trees["better"] / "reports" / DATASET / "metrics.csv")
    known = metrics[(metrics["row"] == "control") & (metrics["metric"] == "slope") & (metrics["slice"] == "brightness")]
    assert slope["challenger"] == pytest.approx(known["mean"].item(), abs=1e-4)


def test_a_worse_challenger_is_not(trees, tmp_path) -> None:
    verdict = judge(params(), DATASET, trees["worse"], trees["champion"], tmp_path)
    assert verdict.decision == "keep" and not verdict.promoted
    assert verdict.summary.startswith("The champion stays, ") and "loss: psnr (−" in verdict.summary
    broken = {reason.rule for reason in verdict.broken}
    assert {"loss: psnr", "slices: expert", "slices: camera", "slices: category", "slices: group", "gain"} <= broken
    assert re.match(r"3 of 3 fell: [abc] −\d", told(verdict, "slices: expert").found)


def test_an_equal_challenger_is_told_so_and_not_promoted(trees, tmp_path) -> None:
    same = gate_trees.copy(trees["champion"], tmp_path / "same")
    verdict = judge(params(), DATASET, same, trees["champion"], tmp_path)
    assert verdict.decision == "equal"
    assert [reason.rule for reason in verdict.broken] == ["gain"]
    assert "its equal" in verdict.summary and "+0.00 [+0.00, +0.00] dB" in verdict.summary
    assert "Equal: keep the champion" in (tmp_path / "verdict.html").read_text()
    # also where no gain at all is asked for
    assert judge(params(gain=0.0), DATASET, trees["champion"], trees["champion"], tmp_path).decision == "equal"


def test_better_by_less_than_is_asked_is_equal(trees, tmp_path) -> None:
    verdict = judge(params(gain=40.0), DATASET, trees["better"], trees["champion"], tmp_path)
    assert verdict.decision == "equal" and "at least 40 dB" in verdict.summary


def test_without_a_champion_floors_alone_decide(trees, tmp_path) -> None:
    verdict = judge(params(), DATASET, trees["champion"], None, tmp_path)
    assert verdict.decision == "promote" and "the first" in verdict.summary
    assert not [r.rule for r in verdict.reasons if r.rule.startswith(("loss", "slices", "gain", "same"))]
    verdict = judge(params(floors={"psnr": 90.0}), DATASET, trees["champion"], None, tmp_path)
    assert verdict.decision == "keep" and verdict.summary.startswith("No model is put in use, 1 of ")
    assert "champion" not in verdict.summary
    assert "Do not put it in use" in (tmp_path / "verdict.html").read_text()


@pytest.mark.parametrize(
    ("gate", "rule"),
    [
        ({"floors": {"psnr": 90.0}}, "floor: psnr"),
        ({"floors": {"psnr_over_input": 90.0}}, "floor: over input"),
        ({"floors": {"slope_mean": 9.0}}, "floor: sliders"),
        ({"floors": {"slope_each": 9.0}}, "floor: each slider"),
        ({"floors": {"texture": 1.0}}, "floor: texture"),
    ],
)
def test_every_floor_can_be_missed(trees, tmp_path, gate, rule) -> None:
    verdict = judge(params(**gate), DATASET, trees["better"], trees["champion"], tmp_path)
    assert (verdict.decision, [reason.rule for reason in verdict.broken]) == ("keep", [rule])
    assert rule in verdict.summary


@pytest.mark.parametrize(("talk", "passed"), [(0.2, True), (0.3, False), (None, False)])
def test_cross_talk_has_a_ceiling_and_must_be_measured(talk, passed) -> None:
    found = [] if talk is None else [Line("excess_cross_talk", "all", Interval(talk, talk, talk, 6, 3), None, None)]
    reasons = {reason.rule: reason for reason in rules.floors(found, params(cross_talk=0.25).gate)}
    assert reasons["ceiling: cross-talk"].passed is passed
    assert not any(reason.passed for rule, reason in reasons.items() if rule != "ceiling: cross-talk")


def test_sliders_that_died_keep_a_better_challenger_out(trees, tmp_path) -> None:
    dead = gate_trees.copy(trees["better"], tmp_path / "dead")
    gate_trees.repaint(dead, gate_trees.flat_axis)
    gate_trees.measure(dead)
    verdict = judge(params(), DATASET, dead, trees["champion"], tmp_path)
    assert verdict.decision == "keep"
    broken = {reason.rule for reason in verdict.broken}
    assert broken == {"floor: sliders", "floor: each slider", "floor: order", "loss: sliders"}


def test_one_slice_that_falls_is_named(trees, tmp_path) -> None:
    """Better on every camera but one: the mean is up, and yet it is kept out."""
    torn = gate_trees.copy(trees["champion"], tmp_path / "torn")
    gate_trees.repaint(torn, nearer(0.9, only=lambda row: row["camera"] == "Sim 0"))
    gate_trees.repaint(torn, nearer(-0.3, only=lambda row: row["camera"] == "Sim 1"))
    gate_trees.measure(torn)
    loose = {"slices": {"expert": None, "category": None, "group": None}, "losses": {"psnr": 9.0, "texture": 1.0}}
    verdict = judge(params(**loose), DATASET, torn, trees["champion"], tmp_path)
    assert verdict.decision == "keep"
    assert [reason.rule for reason in verdict.broken if reason.rule.startswith("slices")] == ["slices: camera"]
    assert re.match(r"1 of 2 fell: Sim 1 −", told(verdict, "slices: camera").found)
    assert told(verdict, "slices: group").passed is None
    slices = {(s["kind"], s["name"]): s for s in json.loads((tmp_path / "verdict.json").read_text())["slices"]}
    assert slices["camera", "Sim 1"]["fallen"] and not slices["camera", "Sim 0"]["fallen"]
    assert {name for kind, name in slices if kind == "category"} == {"outdoors", "night0", "night1", "night2"}
    # too small to be judged
    verdict = judge(params(slices={"photos": 4}), DATASET, torn, trees["champion"], tmp_path)
    assert told(verdict, "slices: camera").passed is None
    assert "smaller" in told(verdict, "slices: camera").found


def test_intervals_of_slices_hold_together_and_a_single_scene_resamples_its_photos() -> None:
    values, settings = pd.Series({f"p{i}": float(i * i) for i in range(6)}), params().evaluate
    groups = {photo: f"g{i // 2}" for i, photo in enumerate(values.index)}
    how = {"resamples": settings.bootstrap, "seed": settings.seed}
    found = measures._interval(values, groups, settings, slices=2)
    assert found == bootstrap(values, list(groups.values()), confidence=0.975, **how)
    alone = measures._interval(values, dict.fromkeys(groups, "one"), settings)
    assert alone == bootstrap(values, list(values.index), confidence=0.95, **how)
    assert (alone.low < alone.mean < alone.high, found.groups, alone.groups) == (True, 3, 6)


def test_a_champion_on_other_photos_is_refused(trees, tmp_path) -> None:
    other = gate_trees.copy(trees["better"], tmp_path / "other")
    gone = "a4501-scene0"
    gate_trees.edit(table(other, "evaluate", "per_sample.parquet"), lambda t: t[t["photo_id"] != gone])
    verdict = judge(params(), DATASET, other, trees["champion"], tmp_path / "out")
    assert verdict.decision == "refuse"
    assert verdict.summary.startswith("The challenger is refused and the champion stays: same photos (1 only with")
    assert told(verdict, "same photos").found == f"1 only with the champion: {gone}"
    assert (tmp_path / "out/verdict.html").exists()


def lose_a_sweep(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["sweep"] != "axis_contrast"]


def other_c(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(c_contrast=rows["c_contrast"] + 0.1)


def other_noise(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(seed=rows["seed"] + 1)


def other_ruler(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(psnr=rows["psnr"] + 0.5 * (rows["sweep"] == "input"))


def other_scene(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(group="elsewhere")


@pytest.mark.parametrize(
    ("change", "rule", "words"),
    [
        (lose_a_sweep, "same sweeps", "42 rows stand on one side only, of axis_contrast"),
        (other_c, "same requests", "with another c"),
        (other_noise, "same requests", "with another noise"),
        (other_ruler, "same measures", "by up to 0.500 dB"),
        (other_scene, "same photos", "6 are described otherwise: a4501-scene0, a4502-scene1, a4503-scene2 and 3 more"),
    ],
)
def test_sides_measured_otherwise_are_refused(trees, tmp_path, change, rule, words) -> None:
    other = gate_trees.copy(trees["better"], tmp_path / "other")
    gate_trees.edit(table(other, "evaluate", "per_sample.parquet"), change)
    verdict = judge(params(), DATASET, other, trees["champion"], tmp_path / "out")
    assert (verdict.decision, [reason.rule for reason in verdict.broken]) == ("refuse", [rule])
    assert words in told(verdict, rule).found


def test_another_corpus_scheme_or_code_is_refused(trees, tmp_path) -> None:
    other = gate_trees.copy(trees["better"], tmp_path / "other")
    card = table(other, "decode", "corpus.json")
    text = card.read_text()
    card.write_text(text.replace("linear-srgb-2", "mylab-1"))
    verdict = judge(params(), DATASET, other, trees["champion"], tmp_path / "out")
    assert "decode_profile is 'mylab-1', the champion's 'linear-srgb-2'" in told(verdict, "same corpus").found
    card.write_text(text)
    scales = table(other, "attributes", "scales.json")
    text = scales.read_text()
    scales.write_text(text.replace('"size":48', '"size":64'))
    verdict = judge(params(), DATASET, other, trees["champion"], tmp_path / "out")
    assert verdict.decision == "refuse" and "other settings" in told(verdict, "same measures").found
    scales.write_text(text)
    mine = gate_trees.copy(trees["champion"], tmp_path / "mine")
    for root, digest in ((other, "1"), (mine, "1")):
        write_lock(root, digest)
    assert told(judge(params(), DATASET, other, mine, tmp_path / "out"), "same code").passed
    write_lock(other, "2")
    verdict = judge(params(), DATASET, other, mine, tmp_path / "out")
    assert verdict.decision == "refuse" and "1 files differ: diffretouch/metrics.py" in verdict.summary


def write_lock(root: Path, digest: str) -> None:
    deps = [
        {"path": "diffretouch/config/base.py", "hash": "md5", "md5": f"config{root.name}"},
        {"path": "diffretouch/metrics.py", "hash": "md5", "md5": digest},
        {"path": "work/decode/fivek", "hash": "md5", "md5": root.name},
    ]
    stages = {f"{stage}@{DATASET}": {"cmd": "", "deps": deps} for stage in ("sample", "evaluate")}
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


def test_what_is_missing_is_named_with_the_command_that_makes_it(trees, tmp_path) -> None:
    bare = gate_trees.copy(trees["better"], tmp_path / "bare")
    table(bare, "evaluate", "per_sample.parquet").unlink()
    with pytest.raises(UserError, match=rf"dvc repro evaluate@{DATASET}` in `{bare}"):
        judge(params(), DATASET, bare, trees["champion"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def lose_expert_b(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(psnr=rows["psnr"].mask((rows["sweep"] == "expert") & (rows["expert"] == "b")))


@pytest.mark.parametrize("where", ["measures", "weights"])
def test_a_nan_is_refused(trees, tmp_path, where) -> None:
    sick = gate_trees.copy(trees["better"], tmp_path / "sick")
    if where == "weights":
        gate_trees.write_model(sick, weights=torch.tensor([1.0, float("nan")]))
    else:
        gate_trees.edit(table(sick, "evaluate", "per_sample.parquet"), lose_expert_b)
    for champion in (trees["champion"], None):
        verdict = judge(params(), DATASET, sick, champion, tmp_path / "out")
        assert verdict.decision == "refuse"
        assert [reason.rule for reason in verdict.broken if reason.rule != "gain"] == [f"finite: {where}"]
    assert ("unet: conv.weight" if where == "weights" else "6 of ") in told(verdict, f"finite: {where}").found
    assert "NaN" not in (tmp_path / "out/verdict.json").read_text()


@pytest.mark.parametrize(("experts", "passed"), [(0.0, False), (0.05, True)])
def test_who_comes_nearer_to_experts_that_clip_may_clip_more_than_the_champion(experts: float, passed: bool) -> None:
    shares = {"input": 0.1, "expert": experts, "challenger": 0.058, "champion": 0.035}
    untouched, champion = rules.clipping(shares, params(clipping={"over_champion": 0.02}).gate, champion=True)
    assert untouched.passed and champion.passed is passed
    assert "3.50%" in champion.found and f"experts {experts:.2%}" in champion.found


def test_clipped_pixels_are_counted_and_bounded(trees, tmp_path) -> None:
    picture = np.full((10, 10, 3), 0.5, np.float32)
    picture[0, :4] = [0.2, 1.0, 0.3]
    picture[1, :5] = 0.0
    picture[2, :] = 254 / 255  # not yet an end
    assert clipped(picture) == pytest.approx(0.09)

    def burnt(image, row, decoded):
        image = image.copy()
        image[:4] = 1.0 if row["sweep"] == "expert" else image[:4]
        return image

    hot = gate_trees.copy(trees["better"], tmp_path / "hot")
    gate_trees.repaint(hot, burnt)
    gate_trees.measure(hot)
    kinds = dict.fromkeys(("expert", "camera", "category", "group"))
    loose = {"losses": {"psnr": 99.0, "texture": 1.0}, "slices": kinds}
    verdict = judge(params(**loose), DATASET, hot, trees["champion"], tmp_path / "out")
    assert told(verdict, "clipping: champion").passed is False
    verdict = judge(params(clipping={"over_input": 0.05}, **loose), DATASET, hot, trees["champion"], tmp_path / "out")
    assert told(verdict, "clipping: input").passed is False and "clipping: input" in verdict.summary


def test_research_data_is_never_promoted_as_commercial(trees, tmp_path) -> None:
    free = ("CC0", "CC BY 4.0")
    verdict = judge(params(use="commercial", commercial=free), DATASET, trees["better"], trees["champion"], tmp_path)
    assert (verdict.decision, verdict.use) == ("promote", "commercial")
    verdict = judge(params(use="commercial"), DATASET, trees["better"], trees["champion"], tmp_path)
    assert verdict.decision == "refuse" and "names none" in told(verdict, "licence").asked
    bound = gate_trees.copy(trees["better"], tmp_path / "bound")
    manifest, asked = table(bound, "decode", "manifest.parquet"), params(use="commercial", commercial=free)
    for licence, words in (("Adobe", "photo: Adobe (1)"), (None, "photo: unknown (1)")):
        rows = pd.read_parquet(manifest)
        rows.assign(licence=rows["licence"].mask(rows["split"] == "train", licence)).to_parquet(manifest, index=False)
        verdict = judge(asked, DATASET, bound, trees["champion"], tmp_path / "out")
        assert verdict.decision == "refuse" and words in verdict.summary
        assert judge(params(), DATASET, bound, trees["champion"], tmp_path / "out").decision == "promote"


def test_the_weights_it_started_from_are_bound_by_their_licence(trees, tmp_path) -> None:
    asked = params(use="commercial", commercial=("CC0", "CC BY 4.0"))
    started = gate_trees.copy(trees["better"], tmp_path / "started")
    start = {"licence": "CC0", "start": {"licence": "non-commercial research"}}
    gate_trees.write_model(started, {"licence": "CC0", "start": start})
    verdict = judge(asked, DATASET, started, trees["champion"], tmp_path / "out")
    assert verdict.decision == "refuse" and "starting weights: non-commercial research (1)" in verdict.summary
    # weights without a card: only their own name can be allowed
    gate_trees.write_model(started, {"licence": "CC0"})
    tree = asked.model_dump(mode="json")
    tree["train"]["start"] = {"source": "lab/sd", "sha256": "0" * 64}
    tree["train"]["autoencoder"]["sha256"] = "0" * 64
    verdict = judge(type(asked).model_validate(tree), DATASET, started, trees["champion"], tmp_path / "out")
    assert verdict.decision == "refuse" and "starting weights: lab/sd" in verdict.summary


def test_a_licence_is_allowed_by_its_whole_name_only() -> None:
    assert allows("CC BY 4.0", ("CC BY 4.0",)) and allows("CC BY 4.0, Somebody", ("CC BY 4.0",))
    for licence in ("CC BY 4.0 NC", "CC BY-NC 4.0", "", "CC", "no CC BY 4.0"):
        assert not allows(licence, ("CC BY", "CC BY 4.0")), licence


def study(root: Path, preferred: str, repeats: int = 0) -> None:
    trials = plan([f"a450{i}-scene{i - 1}" for i in range(1, 7)], "abc", pairs_a_photo=3, repeats=repeats, seed=0)
    key = key_table(named(trials, seed=0, pictures=preferred.encode()))
    key["group"] = key["photo_id"].map(lambda photo: f"group{(int(photo[1:5]) - 4501) // 2}")
    table(root, "study", "key.csv").parent.mkdir(parents=True, exist_ok=True)
    key.to_csv(table(root, "study", "key.csv"), index=False)
    votes = key[["trial", "left", "right"]].assign(study=DATASET, seconds="1.0")
    votes["choice"] = ["left" if arm == preferred else "right" for arm in key["left_arm"]]
    # a repeat is answered the other way round, and must not count
    votes.loc[key["repeat_of"] != "", "choice"] = "left"
    folder = root / "reports" / DATASET / "votes"
    folder.mkdir(parents=True, exist_ok=True)
    votes.to_csv(folder / f"of-{preferred}.csv", index=False)


def test_peoples_verdict_counts_where_there_is_one(trees, tmp_path) -> None:
    asked = gate_trees.copy(trees["better"], tmp_path / "asked")
    study(asked, "ours", repeats=5)
    verdict = judge(params(), DATASET, asked, trees["champion"], tmp_path / "out")
    assert verdict.decision == "promote"
    assert told(verdict, "study").found == "100% [100%, 100%] of 6 votes in 1 files, on 3 scenes"
    verdict = judge(params(votes={"votes": 7}), DATASET, asked, trees["champion"], tmp_path / "out")
    assert told(verdict, "study").passed is None and "6 votes, fewer than 7" in told(verdict, "study").found
    study(asked, "mean_expert")  # on other results: the votes before, which lie there still, do not count
    verdict = judge(params(), DATASET, asked, trees["champion"], tmp_path / "out")
    assert verdict.decision == "keep" and [reason.rule for reason in verdict.broken] == ["study"]
    assert "0% [0%, 0%] of 6 votes in 1 files, on 3 scenes; 1 files are votes on other results" in verdict.summary
    (asked / "reports" / DATASET / "votes/of-mean_expert.csv").unlink()
    verdict = judge(params(), DATASET, asked, trees["champion"], tmp_path / "out")
    assert told(verdict, "study").passed is None
    file = asked / "reports" / DATASET / "votes/of-ours.csv"
    first = next(csv.DictReader((asked / "work/study" / DATASET / "key.csv").read_text().splitlines()))
    file.write_text(f"trial,left,right,choice\n1,{first['left']},{first['right']},left\n2,x.jpg,y.jpg,left\n")
    with pytest.raises(UserError, match=r"of-ours.csv: trial 2 is not of this study"):
        judge(params(), DATASET, asked, trees["champion"], tmp_path / "out")


def test_what_a_rater_saved_twice_counts_once(trees, tmp_path) -> None:
    asked = gate_trees.copy(trees["better"], tmp_path / "asked")
    study(asked, "ours")
    folder = asked / "reports" / DATASET / "votes"
    whole = pd.read_csv(folder / "of-ours.csv")
    whole.assign(rater="one", answered=2_000).to_csv(folder / "of-ours.csv", index=False)
    # saved before every answer was taken back
    other = whole["choice"].map({"left": "right", "right": "left"})
    whole.assign(rater="one", answered=1_000, choice=other).to_csv(folder / "zz-before.csv", index=False)
    whole.assign(rater="two", answered=3_000).to_csv(folder / "two.csv", index=False)
    verdict = judge(params(), DATASET, asked, trees["champion"], tmp_path / "out")
    assert told(verdict, "study").found == "100% [100%, 100%] of 12 votes in 3 files, on 3 scenes"
    # of raters without a name every row counts
    whole.assign(rater="").to_csv(folder / "zz-before.csv", index=False)
    pd.concat([whole, whole]).to_csv(folder / "two.csv", index=False)
    verdict = judge(params(), DATASET, asked, trees["champion"], tmp_path / "out")
    assert told(verdict, "study").found == "100% [100%, 100%] of 24 votes in 3 files, on 3 scenes"


def test_costs_are_measured_on_a_real_model(trees, tmp_path) -> None:
    model, train = gate_trees.copy(trees["better"], tmp_path / "real"), tiny_train()
    made = new_pipeline(train, new_autoencoder(train.autoencoder), "fixed_small", seed=1)
    made.register_to_config(origin={"licence": "CC0"})
    made.save_pretrained(model / "work/train" / DATASET / "model")
    ceilings = {"photos": 2, "seconds_a_photo": 600.0, "peak_gib": 0.01}
    verdict = judge(params(costs=ceilings), DATASET, model, trees["champion"], tmp_path / "out")
    assert verdict.decision == "keep" and [reason.rule for reason in verdict.broken] == ["cost: memory"]
    assert told(verdict, "cost: speed").passed
    assert re.fullmatch(r"\d+\.\d\d s a photo on 1 CPU thread", told(verdict, "cost: speed").found)
    assert 0.1 < float(told(verdict, "cost: memory").found.split()[0]) < 8


def test_a_model_too_large_for_the_gpu_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("diffretouch.sampling.retouching.open_model", too_large)
    job = costs._Job(tmp_path, (tmp_path,), params().sample, "cpu", torch.get_num_threads())
    with pytest.raises(UserError, match=r"cannot be run here to measure gate.costs: CUDA out of memory"):
        costs._run(job, None)  # type: ignore[arg-type]


def test_everything_a_stranger_may_write_is_escaped(trees, tmp_path) -> None:
    hostile = fake_chain.HOSTILE
    roots = {name: gate_trees.copy(trees[name], tmp_path / name) for name in ("worse", "champion")}
    for root in roots.values():
        gate_trees.edit(
            table(root, "evaluate", "per_sample.parquet"),
            lambda t: t.assign(camera=hostile, licence=hostile, categories=hostile.replace(" ", "")),
        )
        card = table(root, "decode", "corpus.json")
        card.write_text(json.dumps(json.loads(card.read_text()) | {"name": hostile, "licence": hostile}))
    gate_trees.write_model(roots["worse"], {"dataset": hostile, "licence": hostile})
    verdict = judge(params(), DATASET, roots["worse"], roots["champion"], tmp_path / "out")
    assert hostile in told(verdict, "slices: camera").found
    html = (tmp_path / "out/verdict.html").read_text()
    assert "<script" not in html and html.count("&lt;script&gt;") > 6
    for source in re.findall(r'(?:src|href|action)="([^"]*)"', html):
        assert source.startswith(("data:", "#")), source
    assert not re.search(r"https?://|@import|url\(", re.sub(r'"data:[^"]*"', "", html))


def test_the_page_shows_where_the_two_differ_most(trees, tmp_path) -> None:
    odd = gate_trees.copy(trees["champion"], tmp_path / "odd")
    gate_trees.repaint(odd, nearer(0.9, only=lambda r: r["photo_id"] == "a4506-scene5" and r["expert"] == "c"))
    gate_trees.measure(odd)
    judge(params(), DATASET, odd, trees["champion"], tmp_path / "out")
    html = (tmp_path / "out/verdict.html").read_text()
    sheets = re.findall(r'<article class="sheet">.*?</article>', html, re.S)
    assert len(sheets) == 2
    assert "a4506-scene5" in sheets[0] and "expert C" in sheets[0]
    assert [*re.findall(r'<p class="mark">(.*?)</p>', sheets[0])] == [
        "untouched",
        "expert C",
        "champion",
        "challenger",
        "where they differ, × 4",
    ]
    assert (tmp_path / "out/verdict.html").read_bytes() == _again(odd, trees["champion"], tmp_path / "twice")


def _again(new: Path, old: Path, out: Path) -> bytes:
    judge(params(), DATASET, new, old, out)
    return (out / "verdict.html").read_bytes()


@browser.needs_browser
@pytest.mark.browser
def test_a_browser_shows_the_page_whole(trees, tmp_path) -> None:
    judge(params(), DATASET, trees["better"], trees["champion"], tmp_path)
    script = (
        "document.body.dataset.broken = [...document.images].filter(i => !i.complete || !i.naturalWidth).length;"
        "document.body.dataset.wide = document.documentElement.scrollWidth > innerWidth;"
    )
    shown = browser.dom(tmp_path / "verdict.html", tmp_path / "profile", script)
    assert 'data-broken="0"' in shown and 'data-wide="false"' in shown
    assert shown.count('<li class="kept">') > 12


def test_the_command_line_says_why_and_exits_by_the_decision(trees, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(params().model_dump(mode="json")))
    sides = {name: ("--challenger", str(trees[name])) for name in ("better", "worse")}
    against = ("--champion", str(trees["champion"]), "--out", "verdict")

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["diffretouch", "gate", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    code, out, _ = run(DATASET, *sides["better"], *against)
    assert code == 0 and out.startswith("promote: The challenger takes the champion's place")
    assert out.rstrip().endswith("verdict/verdict.html")
    code, out, err = run(DATASET, *sides["worse"], *against)
    assert code == 1 and "Traceback" not in err
    assert "  loss: psnr: −" in out and "keep: The champion stays" in out
    code, _, err = run(DATASET, "--challenger", "absent", "--out", "verdict")
    assert code == 2 and "absent" in err
    code, _, err = run("fivk", *sides["better"], "--out", "verdict")
    assert code == 2 and "fivek, ppr10k" in err
    code, out, _ = run("--help")
    assert code == 0 and all(word in out for word in ("Reads:", "Writes:", "Next:", "1 not promoted"))


def test_no_stage_tracks_the_gate() -> None:
    for name in ("dvc.yaml", "compare/dvc.yaml"):
        for stage, body in yaml.safe_load((ROOT / name).read_text())["stages"].items():
            assert not [p for p in body.get("params", []) if "gate" in str(p)], stage
            assert not [dep for dep in body["deps"] if dep.startswith("diffretouch/gating")], stage
