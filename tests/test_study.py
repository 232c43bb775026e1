"""Blinded pairs: balanced, repeated, and silent about what they show."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections import Counter
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd
import pytest

from diffretouch.files.pictures import read_srgb, write_png8
from diffretouch.stages import study
from diffretouch.study.page import page
from diffretouch.study.pairs import Arm, Trial, named, plan
from tests import browser, fake_chain


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The study stage's output folder."""
    root = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        fake_chain.build(root, "fivek")
        study.run(fake_chain.params(), "fivek")
    return root / "work/study/fivek"


def rows(path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_plan_is_balanced_and_repeats_swap_sides() -> None:
    trials = plan([f"p{i}" for i in range(9)], "abcde", pairs_a_photo=3, repeats=4, seed=1)
    assert [t.number for t in trials] == list(range(1, 9 * 3 + 4 + 1))
    first = [t for t in trials if t.repeat_of is None]
    assert Counter(t.left.name if t.left.name != "ours" else t.right.name for t in first) == {
        "expert": 9,
        "mean_expert": 9,
        "input": 9,
    }
    assert abs(sum(t.left.name == "ours" for t in first) - len(first) / 2) <= 0.5
    assert {t.left.expert or t.right.expert for t in first} == set("abcde")
    for t in trials:
        if t.repeat_of is not None:
            original = trials[t.repeat_of - 1]
            assert (t.photo_id, t.left, t.right) == (original.photo_id, original.right, original.left)
    names = [[f for t in named(trials, seed=1, pictures=b) for f in (t.left_file, t.right_file)] for b in (b"1", b"2")]
    assert len({*names[0], *names[1]}) == 4 * len(trials)  # another model's pictures have other names
    assert plan([f"p{i}" for i in range(9)], "abcde", pairs_a_photo=3, repeats=4, seed=1) == trials
    assert plan([f"p{i}" for i in range(9)], "abcde", pairs_a_photo=3, repeats=4, seed=2) != trials


def test_an_expert_is_only_set_against_our_result_for_that_expert() -> None:
    for t in plan(["p", "q"], "abc", pairs_a_photo=9, repeats=0, seed=0):
        ours, other = (t.left, t.right) if t.left.name == "ours" else (t.right, t.left)
        assert ours.name == "ours"
        assert other.expert == (ours.expert if other.name == "expert" else "")


def test_key_and_export_lie_apart_and_agree(out) -> None:
    key, trials = rows(out / "key.csv"), rows(out / "export/trials.csv")
    assert not list((out / "export").rglob("key*"))
    assert [{name: line[name] for name in ("trial", "left", "right")} for line in key] == trials
    manifest = pd.read_parquet(out.parents[2] / "work/decode/fivek/manifest.parquet").set_index("photo_id")
    for line in key:
        assert manifest.loc[line["photo_id"], study.FACTS].to_dict() == {name: line[name] for name in study.FACTS}
    assert {"group", "licence", "camera", "categories"}.isdisjoint(trials[0])
    shown = {line[side] for line in trials for side in ("left", "right")}
    assert {path.name for path in (out / "export").iterdir()} == shown | {"index.html", "trials.csv"}
    assert len(trials) == 4 * 3 + 2


def test_the_export_says_nothing_about_the_arms(out) -> None:
    for path in (out / "export").iterdir():
        assert re.fullmatch(r"[0-9a-f]{12}\.jpg|index\.html|trials\.csv", path.name)
    for name in ("index.html", "trials.csv"):
        text = (out / "export" / name).read_text()
        for word in ("mean_expert", "ours", "expert", "scene0", "a4501"):
            assert word not in text, f"{name} names {word}"
        assert not re.search(r"https?://|//cdn", text)
    for line in rows(out / "key.csv"):
        left, right = ((out / "export" / line[side]).read_bytes() for side in ("left", "right"))
        # one size and one encoder: the same markers up to the first scan, no EXIF, no comment
        assert imagecodecs.jpeg8_decode(left).shape == imagecodecs.jpeg8_decode(right).shape
        assert markers(left) == markers(right)
        assert not {0xE1, 0xED, 0xFE} & {marker for marker, _ in markers(left)}


def test_other_results_have_other_names(out, tmp_path, monkeypatch) -> None:
    """Else a vote on one model would be counted for the next."""
    shutil.copytree(out.parents[2] / "work", tmp_path / "work")
    monkeypatch.chdir(tmp_path)
    key = rows(out / "key.csv")[0]
    ours = pd.read_parquet("work/sample/fivek/samples.parquet").query("sweep == 'expert'")
    letter = key["left_expert"] if key["left_arm"] == "ours" else key["right_expert"]
    (name,) = ours.loc[(ours["photo_id"] == key["photo_id"]) & (ours["expert"] == letter), "path"]
    path = tmp_path / "work/sample/fivek" / name
    write_png8(path, read_srgb(path) * np.float32(0.8))
    study.run(fake_chain.params(), "fivek")
    before, after = (
        {path.name for path in (root / "export").glob("*.jpg")} for root in (out, Path("work/study/fivek"))
    )
    assert len(before) == len(after) and not before & after


def markers(jpeg: bytes) -> list[tuple[int, bytes]]:
    """(marker, its first bytes) of the segments that carry metadata and quantisation."""
    found, at = [], 2
    while jpeg[at + 1] != 0xDA:
        size = int.from_bytes(jpeg[at + 2 : at + 4], "big")
        found.append((jpeg[at + 1], jpeg[at + 4 : at + 2 + size]))
        at += 2 + size
    return [(marker, body) for marker, body in found if marker != 0xC4]


def test_the_same_seed_gives_the_same_bytes(out, monkeypatch) -> None:
    monkeypatch.chdir(out.parents[2])
    before = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    study.run(fake_chain.params(), "fivek")
    assert {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()} == before


def test_hostile_names_cannot_end_the_script() -> None:
    arm = Arm("ours", "a")
    text = page([Trial(1, "p", arm, arm, None, "</script><b>.jpg", "x.jpg")], 'x"</script><script>alert(1)')
    assert text.count("</script>") == 1
    assert "<b>" not in text


@browser.needs_browser
@pytest.mark.browser
def test_a_rater_can_answer_with_the_keyboard(out, tmp_path) -> None:
    press = """
      const key = name => document.dispatchEvent(new KeyboardEvent("keydown", {key: name}));
      key("1"); key("2"); key("Backspace"); key("2"); while (answers.length < TRIALS.length) key("1");
      document.title = "T" + [...document.querySelectorAll(".choice img")].filter(i => i.naturalWidth > 0).length;
      const text = document.createElement("pre"); text.id = "csv"; text.textContent = csv(); document.body.append(text);
    """
    shown = browser.dom(out / "export/index.html", tmp_path, press)
    answers = list(csv.DictReader(io.StringIO(re.search(r'<pre id="csv">(.*?)</pre>', shown, re.S)[1])))
    assert [line["choice"] for line in answers] == ["left", "right", *["left"] * 12]
    assert {line["study"] for line in answers} == {"fivek"}
    assert [line["trial"] for line in answers] == [str(k) for k in range(1, 15)]
    assert "finished" in re.search(r'<main id="stage"[^>]*>', shown)[0]


@browser.needs_browser
@pytest.mark.browser
def test_a_closed_page_goes_on_where_it_was(out, tmp_path) -> None:
    press = """
      const key = name => document.dispatchEvent(new KeyboardEvent("keydown", {key: name}));
      document.title = answers.length + " " + session.rater; key("2"); key("1"); key("2"); key("Backspace");
    """
    titles = [
        re.search(r"<title>(\d+) ([0-9a-f]{16})</title>", browser.dom(out / "export/index.html", tmp_path, press))
        for _ in range(2)
    ]
    assert [int(title[1]) for title in titles] == [0, 2]
    assert titles[0][2] == titles[1][2]
