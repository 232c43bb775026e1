"""The compare stage as people run it: real processes, stopped and going on, and a page that stands by itself."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch.nn.functional import interpolate

from diffretouch.attributes import ATTRIBUTES, scores
from diffretouch.comparing import probe
from diffretouch.comparing.adjust import vary
from diffretouch.comparing.arms import NOT_OF_PEERS, SPENT, runs
from diffretouch.comparing.peer_sample import WEIGHTS
from diffretouch.comparing.probe import DRAWN
from diffretouch.config import Params, load
from diffretouch.errors import ConfigError
from diffretouch.files.pictures import read_srgb
from diffretouch.files.tables import write_table
from diffretouch.metrics import psnr
from diffretouch.model import RetouchPipeline
from diffretouch.sampling.sweeps import requests
from diffretouch.seeds import generator
from diffretouch.stages import attributes, compare
from tests import browser, fake_chain
from tests.train_start import TINY

COMMAND = [sys.executable, "-m", "diffretouch", "compare", "fivek"]
ARMS = Path("work/.resume/compare-fivek")
HOSTILE = fake_chain.HOSTILE
SHORT = {"steps": 4, "log_every": 2, "checkpoint_every": 1}

pytestmark = pytest.mark.slow


def arm(network: str, words: str, **train: object) -> dict:
    return {"words": words, "network": network, "experts": "all", "train": SHORT | train, "sample": {}}


def tiny() -> Params:
    """Two arms of ours, with a grid and with an autoencoder of its own and none, and a peer; one seed."""
    tree = fake_chain.params().model_dump(mode="json")
    tree["datasets"] = ["fivek"]
    tree["train"] |= TINY
    tree["train"]["autoencoder"] |= {"source": None, "steps": 2, "channels": [8, 8, 8, 8], "crop": 32, "batch_size": 2}
    tree["sample"]["axis_points"] = 3
    painted = arm("diffretouch", "painted", output="autoencoder", autoencoder={"init": "shrink", "norm_groups": 1})
    arms = {"full": arm("diffretouch", HOSTILE), "painted": painted, "csrnet": arm("csrnet", "a peer")}
    tree["compare"] |= {"seeds": [0], "best_of": 2, "draws": 4, "photos": 1, "arms": arms}
    tree["runtime"] |= {"device": "cpu", "threads": 1, "workers": 1}
    return Params.model_validate(tree)


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Iterator[None]:
    """Stages set their own number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the stage was stopped in its first training, then went on to its end.

    Of the fixture's four photos the first trains, the second validates, the others test.
    """
    root = tmp_path_factory.mktemp("compare")
    fake_chain.build(root, "fivek")
    manifest = pd.read_parquet(root / "work/decode/fivek/manifest.parquet")
    usable = manifest["status"] == "ok"
    manifest.loc[usable, "split"] = ["train", "val", "test", "test"]
    manifest.loc[usable, "group"] = [f"group{i}" for i in range(4)]
    write_table(root / "work/decode/fivek/manifest.parquet", manifest)
    (root / "params.yaml").write_text(yaml.safe_dump(tiny().model_dump(mode="json"), sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        attributes.run(tiny(), "fivek")
    with subprocess.Popen(COMMAND, cwd=root, stderr=subprocess.PIPE, text=True) as first:
        states, end = root / ARMS / "full-0" / "work/.resume/train-fivek", time.monotonic() + 200
        while not list(states.glob("states-*/step-*.pt")):
            assert time.monotonic() < end and first.poll() is None
            time.sleep(0.01)
        first.send_signal(signal.SIGTERM)
        said = first.communicate(timeout=60)[1]
    assert first.returncode == 143, said
    assert "run the same command to go on" in said and "Traceback" not in said
    assert not (root / "work/compare").exists()
    subprocess.run(COMMAND, cwd=root, check=True, capture_output=True, timeout=400)
    return root


def table(root: Path) -> pd.DataFrame:
    return pd.read_csv(root / "reports/fivek/compare.csv").set_index(["arm", "seed", "metric", "slice"])["mean"]


def test_it_went_on_and_its_arms_share_what_is_prepared(compared: Path) -> None:
    log = (compared / ARMS / "full-0/log.txt").read_text()
    assert re.search(r"stopped at step \d", log) and re.search(r"going on from step \d", log)
    # another inode would mean that training did not take the prepared views as its own
    places = list((compared / ARMS).rglob("views/marks.json"))
    # one of the two sets of views is of the arm with an autoencoder of its own
    assert len(places) == 5 and len({path.stat().st_ino for path in places}) == 2
    spent = [json.loads(line) for line in (compared / ARMS / "full-0" / SPENT).read_text().splitlines()]
    assert [(line["step"], line["exit"]) for line in spent] == [
        ("train", 143),
        ("train", 0),
        *((step, 0) for step in ("sample", "evaluate", "probe")),
    ]


def test_numbers_are_those_of_the_pictures(compared: Path) -> None:
    found, decoded = table(compared), compared / "work/decode/fivek"
    manifest = pd.read_parquet(decoded / "manifest.parquet").query("split == 'test' and status == 'ok'")
    for name, sweep in (("full", "expert"), ("csrnet", "neutral")):
        folder = compared / ARMS / f"{name}-0" / "work/sample/fivek"
        samples = pd.read_parquet(folder / "samples.parquet").query("sweep == @sweep")
        values = []
        for _, photo in manifest.iterrows():
            own = samples[samples["photo_id"] == photo["photo_id"]]
            for x in "abc":
                line = (own[own["expert"] == x] if sweep == "expert" else own).iloc[0]
                values.append(psnr(read_srgb(folder / line["path"]), read_srgb(decoded / photo[f"expert_{x}"])))
        assert found[name, "all", "psnr", "all"] == pytest.approx(sum(values) / len(values), abs=1e-3)
        assert found[name, "0", "psnr", "all"] == found[name, "all", "psnr", "all"]
    over = found["full", "all", "psnr", "all"] - found["csrnet", "all", "psnr", "all"]
    assert found["full", "all", "psnr_minus_best_peer", "all"] == pytest.approx(over, abs=2e-4)
    # four steps hardly move a grid or a peer away from the photo
    assert found["full", "all", "texture", "all"] > 0.9 > found["painted", "all", "texture", "all"]
    assert {"slope", "excess_cross_talk"} <= set(found["full"].index.get_level_values("metric"))
    assert "slope" not in found["csrnet"].index.get_level_values("metric")


def test_the_best_of_draws_is_that_of_a_loop(compared: Path) -> None:
    """Both arms are asked for the same random c; ours is told them, the peer's one result is moved by them. Of four
    that are tried, every two of them are looked at.
    """
    found, decoded, params = table(compared), compared / "work/decode/fivek", tiny()
    truths = pd.read_parquet(compared / "work/attributes/fivek/attributes.parquet").set_index("photo_id")
    folder = compared / ARMS / "csrnet-0" / "work/sample/fivek"
    plain = pd.read_parquet(folder / "samples.parquet").query("sweep == 'neutral'").set_index("photo_id")["path"]
    model = compared / ARMS / "full-0" / "work/train/fivek/model"
    pipe = RetouchPipeline.from_pretrained(model, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    size = json.loads((compared / "work/attributes/fivek/scales.json").read_text())["size"]
    best: dict[tuple[str, str], list[float]] = {}
    for _, photo in (
        pd.read_parquet(decoded / "manifest.parquet").query("split == 'test' and status == 'ok'").iterrows()
    ):
        own = truths.loc[photo["photo_id"]]
        asked = [r for r in requests("fivek", photo["photo_id"], {}, params.sample.seed, 4, 3) if r.sweep == DRAWN]
        c = torch.tensor([request.condition for request in asked])
        seen = torch.tensor(read_srgb(decoded / photo["input"])).movedim(2, 0)
        made = pipe([seen] * 4, c.float(), generator=[generator(*request.noise) for request in asked]).images
        base = torch.tensor(read_srgb(folder / plain[photo["photo_id"]])).movedim(2, 0)[None]
        s = torch.tensor(own[[f"score_{name}" for name in ATTRIBUTES]].to_numpy(float))
        half = (s.max(0).values - s.min(0).values) / 2
        moved = vary(base, scores(base, size).double() + c * half, half, size)
        assert len(asked) == 4
        for name, pictures in (("full", made), ("csrnet", moved)):
            for x in "abc":
                truth = read_srgb(decoded / photo[f"expert_{x}"])
                near = [psnr(picture.movedim(0, 2).numpy(), truth) for picture in pictures]
                best.setdefault((name, x), []).append(np.mean([max(pair) for pair in combinations(near, 2)]))
    for (name, x), values in best.items():
        assert found[name, "all", "psnr_best_of", f"expert_{x}"] == pytest.approx(np.mean(values), abs=0.01), name


def test_a_peer_of_one_expert_is_measured_without_draws(
    compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(compared / ARMS / "csrnet-0")
    monkeypatch.setattr(probe, "new_dir", lambda _folder: tmp_path)
    measured = []
    for one in ("", "c"):
        probe.run(tiny(), "fivek", one)
        measured.append(pd.read_parquet(tmp_path / "probe.parquet"))
    pooled, alone = measured
    assert "psnr_best_of" in set(pooled["metric"]) and set(alone["metric"]) == {"texture", "texture_experts"}
    pd.testing.assert_frame_equal(pooled[pooled["metric"].isin(alone["metric"])].reset_index(drop=True), alone)


def test_what_a_peer_does_not_read_changes_none_of_its_weights(
    compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(compared)
    model = compared / ARMS / "full-0" / "work/train/fivek/model"
    unet, vae = (
        hashlib.sha256((model / part / "diffusion_pytorch_model.safetensors").read_bytes()).hexdigest()
        for part in ("unet", "vae")
    )
    run = next(run for run in runs(load(compared / "params.yaml"), "fivek", 1) if run.name == "csrnet")
    before = run.params.train.model_dump(mode="json")
    other = {
        "start": {"source": str(model), "sha256": unet},
        "autoencoder": before["autoencoder"] | {"sha256": vae, "learning_rate": 0.1},
        "network_size": 96,
        "channels": [16, 8],
        "attention": [True, True],
        "norm_groups": 4,
        "head_channels": 4,
        "layers_per_block": 2,
        "grid_depth": 4,
        "precision": "bf16",
        "output": "autoencoder",
        "condition": "none",
        "dropout_by_component": True,
        "timesteps": [5, 995],
        "pixel_timesteps": [10, 990],
        "control_loss": "published",
        "published_gradient": "own",
        "validation_steps": 7,
        "validation_last_timestep": 20,
        "slider_photos": 5,
    }
    other |= {name: before[name] / 3 + 0.1 for name in NOT_OF_PEERS - other.keys()}
    assert other.keys() == NOT_OF_PEERS and all(other[name] != before[name] for name in other)
    tree = run.params.model_dump(mode="json")
    tree["train"] |= other
    tree["sample"] |= {"steps": 7, "last_timestep": 20}
    changed = replace(run, folder=tmp_path, params=Params.model_validate(tree))
    for stage in ("decode", "attributes"):
        shutil.copytree(compared / "work" / stage, tmp_path / "work" / stage)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    for words in (("prepare", "fivek"), run.words("peer-train")):
        command = [sys.executable, "-m", "diffretouch.comparing.child", str(os.getpid()), *words]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=200)
    latents = "work/.resume/train-fivek/views/train/latent_mean.npy"
    assert (changed.folder / latents).stat().st_size != (compared / ARMS / "csrnet-0" / latents).stat().st_size
    path = Path("work/train/fivek") / WEIGHTS
    assert (tmp_path / path).read_bytes() == (compared / ARMS / "csrnet-0" / path).read_bytes()
    # nor is it trained again for them
    assert changed.marks["peer-train"] == run.marks["peer-train"]


def test_what_a_decoder_passes_on_is_that_of_a_loop(compared: Path) -> None:
    found, decoded = table(compared), compared / "work/decode/fivek"
    assert "psnr_autoencoder" not in found["full"].index.get_level_values("metric")
    manifest = pd.read_parquet(decoded / "manifest.parquet").query("split == 'test' and status == 'ok'")
    truths = pd.read_parquet(compared / "work/attributes/fivek/attributes.parquet").set_index(["photo_id", "expert"])
    scales = json.loads((compared / "work/attributes/fivek/scales.json").read_text())
    model = compared / ARMS / "painted-0" / "work/train/fivek/model"
    pipe = RetouchPipeline.from_pretrained(model, local_files_only=True)
    near, passed = [], {name: [] for name in ATTRIBUTES}
    for _, photo in manifest.iterrows():
        again, own = [], []
        for x in "abc":
            right = torch.tensor(read_srgb(decoded / photo[f"expert_{x}"])).movedim(2, 0)[None]
            resize = {"mode": "bilinear", "antialias": True, "align_corners": False}
            with torch.no_grad():
                square = interpolate(right, size=(pipe.picture_size,) * 2, **resize)
                made = pipe.vae.decode(pipe.vae.encode(square * 2 - 1).latent_dist.mean).sample / 2 + 0.5
            made = interpolate(made.clamp(0, 1), size=right.shape[2:], **resize).clamp(0, 1)
            near.append(psnr(made[0].numpy(), right[0].numpy()))
            again.append(scores(made, scales["size"])[0].double())
            own.append([truths.loc[(photo["photo_id"], x), f"score_{name}"] for name in ATTRIBUTES])
        for i, name in enumerate(ATTRIBUTES):
            a, b = np.array([float(s[i]) for s in again]), np.array([s[i] for s in own])
            limit = scales["just_noticeable"][name] * ((max(b) + min(b)) / 2 if name == "contrast" else 1)
            if (max(b) - min(b)) / 2 >= limit:
                passed[name].append(np.polyfit(b, a, 1)[0])
    assert found["painted", "all", "psnr_autoencoder", "all"] == pytest.approx(np.mean(near), abs=1e-3)
    for name, slopes in passed.items():
        assert slopes and found["painted", "all", "slope_autoencoder", name] == pytest.approx(np.mean(slopes), abs=1e-3)
    html = (compared / "reports/fivek/compare.html").read_text(encoding="utf-8")
    assert html.count("is painted by its autoencoder's decoder") == 1
    assert "train.autoencoder.init: shrink, train.autoencoder.norm_groups: 1" in html


def test_what_people_get_holds_no_time_and_stands_by_itself(compared: Path) -> None:
    html = (compared / "reports/fivek/compare.html").read_text(encoding="utf-8")
    for source in re.findall(r'(?:src|href|action)="([^"]*)"', html):
        assert source.startswith(("data:", "#")), source
    assert HOSTILE not in html and "&lt;script&gt;" in html and "Simulated corpus" in html
    assert html.count('<li class="met"') + html.count('<li class="missed"') >= 5
    assert read_srgb(compared / "reports/fivek/compare.png").shape[1] > 600
    names = {path.name for path in (compared / "work/compare/fivek").iterdir()}
    assert names == {"per_photo.parquet", "compare.parquet", "compare.csv", "compare.png"}
    assert "cpu" not in (compared / "reports/fivek/compare.csv").read_text()


@browser.needs_browser
def test_the_page_lives_in_a_browser(compared: Path, tmp_path: Path) -> None:
    shown = browser.dom(
        compared / "reports/fivek/compare.html",
        tmp_path,
        "document.body.dataset.wide = document.documentElement.scrollWidth > innerWidth + 1;"
        "document.body.dataset.broken = [...document.images].filter(i => i.complete && !i.naturalWidth).length",
    )
    assert 'data-wide="false"' in shown and 'data-broken="0"' in shown


def test_nothing_is_run_again_and_the_outputs_are_the_same(
    compared: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(compared)
    outs = [p for name in ("reports", "work/compare") for p in sorted(Path(name).rglob("*")) if p.is_file()]
    before = {path: path.read_bytes() for path in outs}
    # another page, another order of work: no arm depends on these
    tree = tiny().model_dump(mode="json")
    tree["runtime"] |= {"workers": 2}
    compare.run(Params.model_validate(tree), "fivek")
    said = capfd.readouterr().err
    assert "train" not in said and "done" not in said
    assert [str(path) for path in outs if path.read_bytes() != before[path]] == []


def test_an_expert_that_the_dataset_lacks_is_named(compared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(compared)
    tree = load().model_dump(mode="json")
    tree["compare"]["expert"] = "z"
    with pytest.raises(ConfigError, match=r"compare.expert is 'z', but fivek has the experts a, b, c"):
        compare.run(Params.model_validate(tree), "fivek")
