"""The page and the tables at the end: offline, escaped, the same bytes, and alive in a real browser."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from collections import Counter

import imagecodecs
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from diffretouch.errors import UserError
from diffretouch.files.pictures import reduce_to
from diffretouch.report import weights
from diffretouch.report.frames import histogram
from diffretouch.report.numbers import Metrics, Number, interval, signed
from diffretouch.report.photos import choose, ranges
from diffretouch.report.summary import print_summary
from diffretouch.report.unused import KINDS, SHOWN
from diffretouch.stages import embed, evaluate, report
from tests import browser, fake_chain

BAD = [
    (f"a{100 + 7 * i:04d}-bad", list(KINDS)[i * i % len(KINDS)], f"{fake_chain.HOSTILE}/{'x' * 300}.dng: reason {i}")
    for i in range(69)
]
"""With the one of every fake corpus, 70."""
THUMBNAILS = {photo_id: fake_chain.scene(k, 64, 96)[:, : 96 - k] for k, (photo_id, _, _) in enumerate(BAD[::2])}
LEFT_OUT = [(f"a3{i:03d}-left-out", "", "") for i in range(3)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with the whole chain up to the page: fivek simulated, ppr10k said to be real."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        params = fake_chain.params(evaluate={"bootstrap": 50})
        for dataset, provenance in (("fivek", "simulated"), ("ppr10k", "real")):
            came = "raw" if dataset == "fivek" else "rendered"
            fake_chain.build(folder, dataset, provenance=provenance, input_kind=came)
            fake_chain.draw_attributes(folder / "work/attributes" / dataset / "attributes.png")
            evaluate.run(params, dataset)
            embed.run(params, dataset)
        fake_chain.quarantine(folder, "fivek", BAD, THUMBNAILS, camera=fake_chain.HOSTILE)
        fake_chain.quarantine(folder, "fivek", LEFT_OUT, status="left_out")
        report.run(params)
    return folder


@pytest.fixture(scope="module")
def html(root) -> str:
    return (root / "reports/index.html").read_text(encoding="utf-8")


def section(html: str, name: str) -> str:
    found = re.search(rf'<section id="{name}">.*?</section>', html, re.S)
    assert found, name
    return found[0]


@pytest.fixture
def again(root, monkeypatch):
    """Rewrites a manifest, makes the page from it, and leaves both as they were."""
    monkeypatch.chdir(root)
    page = root / "reports/index.html"
    kept = {page: page.read_bytes()}

    def make(dataset: str, change) -> str:
        path = root / "work/decode" / dataset / "manifest.parquet"
        kept[path] = path.read_bytes()
        change(pd.read_parquet(path)).to_parquet(path, index=False)
        report.run(fake_chain.params())
        return page.read_text(encoding="utf-8")

    yield make
    for path, content in kept.items():
        path.write_bytes(content)


def test_the_page_needs_no_network(html) -> None:
    for source in re.findall(r'(?:src|href|action)="([^"]*)"', html):
        assert source.startswith(("data:", "#")), source
    assert not re.search(r"https?://(?!www\.w3\.org)|@import|url\(", re.sub(r'"data:[^"]*"', "", html))
    assert len(html) < 12e6


def test_everything_a_stranger_may_write_is_escaped(html) -> None:
    assert fake_chain.HOSTILE not in html
    assert "LibRaw cannot read &lt;script&gt;" in html
    assert "CC BY 4.0, &lt;b&gt;photographer 0&lt;/b&gt;" in html


def test_only_the_simulated_corpus_carries_the_banner(html) -> None:
    banner = re.search(r'<aside class="banner".*?</aside>', html, re.S)[0]
    assert "fivek" in banner
    assert "ppr10k" not in banner
    assert html.count('<span class="chip">simulated</span>') == 1


def test_the_page_shows_what_the_design_asks_for(html) -> None:
    assert html.count('<article class="sheet"') == 2 * 2
    assert html.count('class="mark">expert ') == 2 * 3 + 2 * 2
    assert html.count('<input type="range"') == 2 * 2 * 4
    strips = re.findall(r'<div class="strip">(.*?)</div>', html, re.S)
    assert {strip.count("<img") for strip in strips} == {fake_chain.POINTS}
    assert html.count('<svg class="hist"') == 2 * (1 + 6 + 6) + 2 * (1 + 4 + 6)
    for words in ("4 photos, 2 scenes", "LPIPS is absent", "linear-srgb-2", "oracle", "scene group0 · Sim 0 · CC BY"):
        assert words in html
    assert len(re.findall(r'src="data:image/png;base64', html)) == 2 * 5


def test_numbers_say_which_rendering_and_split_they_stand_on(html, again) -> None:
    raw, rendered = section(html, "fivek-corpus"), section(html, "ppr10k-corpus")
    assert "RAW developed here, decode profile linear-srgb-2 (demosaic AHD, highlights Clip" in raw
    assert "finished pictures that came with the corpus" in rendered and "RAW developed" not in rendered
    assert html.count("developed from the RAW, nothing else done") == 2
    assert html.count("as it came with the corpus, nothing else done") == 2
    assert "disjoint by scene" in raw

    def move(manifest: pd.DataFrame) -> pd.DataFrame:
        manifest.loc[manifest["photo_id"] == "a4502-scene1", "split"] = "train"
        return manifest

    moved = section(again("fivek", move), "fivek-corpus")
    assert "1 train, 0 val, 3 test" in moved and "scenes in more than one of them: 1" in moved
    assert "disjoint" not in moved


def test_weights_are_those_that_the_model_names(html) -> None:
    own, other = section(html, "fivek-corpus"), section(html, "ppr10k-corpus")
    assert "network trained on fivek demo, from random weights" in own
    assert "autoencoder: fitted to the training photos before it" in own
    assert "network and autoencoder: Converted from &lt;script&gt;" in other
    assert "(licence: non-commercial)" in other and "trained on" not in other
    assert html.count("The model judged on this page is another one than that of these curves") == 1


def test_weights_in_words() -> None:
    base = {"weights": "sd-2-base", "sha256": "ab12", "licence": "openrail++"}
    assert weights.words({"dataset": "FiveK", "start": base}) == (
        "network trained on FiveK, from other weights: sd-2-base, SHA-256 ab12 (licence: openrail++)",
        "autoencoder: the one of the weights it started from",
    )
    assert weights.words({"dataset": "FiveK", "start": {"dataset": "PPR10K"}, "autoencoder": base}) == (
        "network trained on FiveK, from other weights: a model trained on PPR10K",
        "autoencoder: sd-2-base, SHA-256 ab12 (licence: openrail++)",
    )
    assert weights.words({}) == ("network and autoencoder: not recorded where from",)


def test_what_was_not_used_is_counted_by_kind(html) -> None:
    own = section(html, "fivek-unused")
    assert "Quarantined: 70 of 74 photos." in own
    rows = re.findall(r'<tr><th scope="row">(\w+)</th><td>(\d+)</td>.*?class="said">([^<]+)</td></tr>', own)
    expected = Counter(kind for _, kind, _ in BAD) + Counter(["unreadable"])
    assert {kind: int(count) for kind, count, _ in rows} == expected
    assert [int(count) for _, count, _ in rows] == sorted(expected.values(), reverse=True)
    assert all(len(words) > 10 for _, _, words in rows)
    assert "so left out: 3." in own and "left-out" not in html
    assert "Quarantined: 1 of 5 photos." in html and html.count("so left out") == 1


def test_the_contact_sheet_holds_the_first_by_kind_and_id(html) -> None:
    own = section(html, "fivek-unused")
    tiles = re.findall(r'<figure class="tile">(.*?)</figure>', own, re.S)
    first = sorted([*((kind, photo_id) for photo_id, kind, _ in BAD), ("unreadable", "a0009-broken")])[:SHOWN]
    shown = [(re.search(r'mark">(\w+)<', tile)[1], re.search(r"<b>([^<]+)</b>", tile)[1]) for tile in tiles]
    assert shown == first and len(shown) == 60
    assert "Shown: the first 60 by kind and id. 10 more, each with its reason" in own
    for tile, (_, photo_id) in zip(tiles, first, strict=True):
        assert ("<img" in tile) == (photo_id in THUMBNAILS)
        assert ("its files hold no small picture that can be read" in tile) == (photo_id not in THUMBNAILS)
        assert ("<small>" in tile) == (photo_id != "a0009-broken")
    assert "more, each" not in section(html, "ppr10k-unused")


def test_a_tiles_picture_is_that_photos_thumbnail(html) -> None:
    own = section(html, "fivek-unused")
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]*)" width="\d+" height="\d+" alt="([^"]+)"', own)
    assert len(found) > 20
    for packed, photo_id in found:
        image = imagecodecs.imread(base64.b64decode(packed)) / 255
        expected = reduce_to(THUMBNAILS[photo_id], long_edge=36)
        assert image.shape == expected.shape
        assert np.abs(image - expected).mean() < 0.03


def test_a_corpus_without_a_fault_says_so(again) -> None:
    html = again("ppr10k", lambda manifest: manifest[manifest["status"] == "ok"])
    assert "None was quarantined." in section(html, "ppr10k-unused")
    assert '<figure class="tile"' not in section(html, "ppr10k-unused")
    assert '"#ppr10k-unused">1 quarantined' not in html and '"#fivek-unused">70 quarantined' in html


def test_numbers_on_the_page_are_those_of_metrics_csv(root, html) -> None:
    metrics = Metrics(root / "reports/fivek/metrics.csv")
    for row in ("input", "expert", "random_2_3"):
        assert f"<td>{interval(metrics.get(row, 'psnr'))}</td>" in html
    assert signed(metrics.get("expert_minus_input", "psnr").mean, 1) in html


def test_the_same_inputs_give_the_same_bytes(root, html, monkeypatch) -> None:
    monkeypatch.chdir(root)
    report.run(fake_chain.params())
    assert (root / "reports/index.html").read_text(encoding="utf-8") == html


def test_a_missing_output_is_answered_with_the_command_that_makes_it(root, monkeypatch) -> None:
    monkeypatch.chdir(root)
    plot = root / "work/embed/fivek/tsne.png"
    content = plot.read_bytes()
    plot.unlink()
    with pytest.raises(UserError, match="dvc repro embed@fivek"):
        report.run(fake_chain.params())
    plot.write_bytes(content)


def test_photos_are_chosen_scene_by_scene(root) -> None:
    manifest = pd.read_parquet(root / "work/decode/fivek/manifest.parquet").query("status == 'ok'")
    assert choose(manifest, 3)["photo_id"].tolist() == ["a4501-scene0", "a4503-scene2", "a4502-scene1"]


def test_sliders_show_a_dash_where_the_experts_agree(root, monkeypatch) -> None:
    path = root / "work/attributes/fivek/attributes.parquet"
    content, page = path.read_bytes(), (root / "reports/index.html").read_bytes()
    truths = pd.read_parquet(path)
    own = truths["photo_id"] == "a4501-scene0"
    middle = truths.loc[own, "score_temperature"].mean()
    truths.loc[own, "score_temperature"] = [middle - 4.9, middle, middle + 4.9]  # mired: 5 can be noticed
    spans = ranges(truths, "a4501-scene0", fake_chain.params().attributes)
    assert spans["temperature"][0] == pytest.approx(middle) and np.isnan(spans["temperature"][1])
    assert spans["brightness"][1] > 0
    truths.to_parquet(path)
    monkeypatch.chdir(root)
    report.run(fake_chain.params())
    sheet = (root / "reports/index.html").read_text(encoding="utf-8").split('<article class="sheet"')[1]
    path.write_bytes(content)
    (root / "reports/index.html").write_bytes(page)
    assert sheet.count('<output title="experts agree">') == 1
    assert sheet.count('data-measured="–"') == fake_chain.POINTS


def test_a_number_without_an_interval_is_shown_alone(root) -> None:
    assert interval(Number(0.5, float("nan"), float("nan"), 4, 2)) == "0.50"
    part = "colorfulness->brightness"
    known = Metrics(root / "reports/fivek/metrics.csv").get("cross_talk", "experts_correlation", part)
    assert known is not None and interval(known) == f"{known.mean:.2f}"


def test_histogram_stands_where_the_values_are() -> None:
    image = np.zeros((10, 10, 3), np.float32)
    image[..., 0] = 0.5
    red, green, _ = re.findall(r'd="([^"]*)"', histogram(image))
    assert re.findall(r"L(\d+) 0", red) == ["49"]
    assert re.findall(r"L(\d+) 0(?=[ Z])", green)[0] == "0"


def test_summary_prints_the_tables_from_reports_alone(root, tmp_path) -> None:
    out = io.StringIO()
    print_summary(fake_chain.params(), root / "reports", Console(file=out, width=140))
    text = out.getvalue()
    metrics = Metrics(root / "reports/fivek/metrics.csv")
    assert interval(metrics.get("expert", "psnr")) in text
    assert f"expert − input: {signed(metrics.get('expert_minus_input', 'psnr').mean)} dB" in text
    assert text.count("simulated corpus") == 1
    assert text.splitlines()[-1].endswith("reports/index.html")
    with pytest.raises(UserError, match="dvc repro evaluate@fivek"):
        print_summary(fake_chain.params(), tmp_path)


def test_summary_starts_light() -> None:
    code = "import diffretouch.report.summary, sys; print(sorted({'torch', 'pandas', 'matplotlib'} & set(sys.modules)))"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=fake_chain.ROOT).stdout == "[]\n"


@browser.needs_browser
@pytest.mark.browser
def test_sliders_and_loupe_work_in_a_browser_without_a_network(root, tmp_path) -> None:
    move = """
      const sheet = document.querySelector(".sheet"), view = sheet.querySelector(".view");
      const range = sheet.querySelectorAll(".axis input")[1];
      range.value = 6; range.dispatchEvent(new Event("input"));
      const strip = [...sheet.querySelectorAll(".axis")[1].querySelectorAll(".strip img")];
      const say = {moved: view.src === strip[6].src, readout: sheet.querySelector(".readout").textContent};
      sheet.querySelector(".hold").dispatchEvent(new Event("pointerdown"));
      say.held = view.src === sheet.querySelector(".source img").src;
      sheet.querySelector(".hold").dispatchEvent(new Event("pointerup"));
      say.released = view.src === strip[6].src;
      sheet.querySelector(".source img").click();
      document.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
      say.loupe = document.querySelector("#loupe b").textContent;
      say.empty = [...document.images].filter(i => i.getAttribute("src") && i.complete && !i.naturalWidth).length;
      say.wide = document.documentElement.scrollWidth > innerWidth;
      document.title = JSON.stringify(say);
    """
    title = re.search(r"<title>(.*?)</title>", browser.dom(root / "reports/index.html", tmp_path, move))[1]
    assert title == (
        '{"moved":true,"readout":"brightness +1.00","held":true,"released":true,'
        '"loupe":"a4501-scene0 · expert A","empty":0,"wide":false}'
    )


@browser.needs_browser
@pytest.mark.browser
def test_the_contact_sheet_in_a_browser(root, tmp_path) -> None:
    look = """
      const tiles = [...document.querySelectorAll("#fivek-unused .tile")];
      const pictures = tiles.flatMap(tile => [...tile.querySelectorAll("img")]);
      pictures.forEach(picture => picture.loading = "eager");
      const say = {tiles: tiles.length, scripts: document.querySelectorAll(".contact script, main b b").length};
      say.hostile = tiles.filter(tile => tile.querySelector("small")?.textContent === "HOSTILE").length;
      say.inside = tiles.every(tile => tile.scrollWidth <= tile.clientWidth);
      const cells = tiles.map(tile => tile.querySelector("img, .blank").getBoundingClientRect());
      say.alike = new Set(cells.map(cell => Math.round(cell.width) + "x" + Math.round(cell.height))).size;
      say.wide = document.documentElement.scrollWidth > innerWidth;
      document.title = JSON.stringify(say);
    """.replace("HOSTILE", fake_chain.HOSTILE.replace("<", "\\x3c"))
    title = re.search(r"<title>(.*?)</title>", browser.dom(root / "reports/index.html", tmp_path, look))[1]
    assert title == '{"tiles":60,"scripts":0,"hostile":59,"inside":true,"alike":1,"wide":false}'


@browser.needs_browser
@pytest.mark.browser
@pytest.mark.parametrize("width", [1440, 500])
def test_the_page_is_painted(root, tmp_path, width) -> None:
    shot = tmp_path / "page.png"
    browser.screenshot(root / "reports/index.html", tmp_path / "profile", shot, width=width, height=1800)
    image = imagecodecs.imread(shot)[..., :3].astype(int)
    assert image.shape[:2] == (1800, width)
    # the banner's amber, the dark ground, and coloured photographs
    assert (np.abs(image - (232, 165, 60)).max(-1) < 6).mean() > 0.005
    assert (image.max(-1) < 60).mean() > 0.4
    assert len(np.unique(image.reshape(-1, 3) // 16, axis=0)) > 80
