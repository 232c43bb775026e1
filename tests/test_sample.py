"""sample: the laws of c and noise, and the stage on a tiny but real model."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from diffretouch.attributes import ATTRIBUTES
from diffretouch.config import Params
from diffretouch.errors import ConfigError, UserError
from diffretouch.files.pictures import read_srgb, write_picture
from diffretouch.model import RetouchPipeline
from diffretouch.model.build import new_autoencoder, new_pipeline
from diffretouch.sampling.made import Made, Part
from diffretouch.sampling.retouching import retouched
from diffretouch.sampling.sweeps import RANGES, Request, requests
from diffretouch.seeds import generator, seed_of
from diffretouch.stages import sample
from tests import fake_chain
from tests.test_model import tiny_train

EXPERTS = {x: tuple(0.1 * k + 0.05 * i for i in range(4)) for k, x in enumerate("abcde")}
COLUMNS = [
    *("photo_id", "split", "group", "licence", "camera", "categories"),
    *("sweep", "expert", "sample", "seed", "scheduler", "steps"),
    *(f"c_{name}" for name in ATTRIBUTES),
    "path",
]


def wanted(photo_id: str = "a4501-x", **changes) -> list[Request]:
    words = {"experts": EXPERTS, "seed": 0, "draws": 4, "points": 7} | changes
    return requests("fivek", photo_id, **words)


# the sweeps


def test_every_picture_that_is_asked_for() -> None:
    counted = pd.Series([request.sweep for request in wanted()]).value_counts().to_dict()
    assert counted == {"expert": 5, "neutral": 1, **dict.fromkeys(RANGES, 4), **{f"axis_{a}": 7 for a in ATTRIBUTES}}
    assert len(wanted()) == 46


def test_experts_and_neutral_have_the_c_they_are_named_for() -> None:
    of = {(request.sweep, request.expert): request.condition for request in wanted()}
    assert all(of["expert", x] == c for x, c in EXPERTS.items())
    assert of["neutral", None] == (0.0,) * 4


@pytest.mark.parametrize("sweep", RANGES)
def test_random_c_stay_in_their_range_on_every_axis_with_both_signs(sweep: str) -> None:
    low, high = RANGES[sweep]
    drawn = np.array([r.condition for r in wanted(draws=500) if r.sweep == sweep])
    assert drawn.shape == (500, 4)
    assert (np.abs(drawn) >= low).all() and (np.abs(drawn) <= high).all()
    assert np.abs(np.abs(drawn).mean(0) - (low + high) / 2).max() < 0.06
    assert np.abs((drawn > 0).mean(0) - 0.5).max() < 0.1
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.2


def test_axis_points_move_one_attribute_from_end_to_end_with_the_same_noise() -> None:
    for axis, attribute in enumerate(ATTRIBUTES):
        points = [request for request in wanted() if request.sweep == f"axis_{attribute}"]
        moved = np.array([request.condition for request in points])
        assert moved[:, axis] == pytest.approx(np.linspace(-1, 1, 7))
        assert (np.delete(moved, axis, 1) == 0).all()
        assert [request.sample for request in points] == list(range(7))
        assert len({request.noise for request in points}) == 1


def test_every_other_picture_has_noise_of_its_own() -> None:
    asked = [*wanted("a4501-x"), *wanted("a4502-y")]
    others = [seed_of(*request.noise) for request in asked if not request.sweep.startswith("axis_")]
    assert len(set(others)) == len(others)
    assert len({seed_of(*request.noise) for request in asked}) == len(others) + 2 * len(ATTRIBUTES)


def test_c_and_noise_depend_on_nothing_but_their_name() -> None:
    """Not on what was drawn before, nor on other photos, nor on how many draws or experts there are."""
    alone = {(r.sweep, r.expert, r.sample): (r.condition, r.noise) for r in wanted()}
    torch.rand(3)
    wanted("a4502-y")
    fewer = wanted(draws=2, experts={x: EXPERTS[x] for x in "db"})
    assert len(fewer) == 2 + 1 + 6 + 28
    for request in fewer:
        assert alone[request.sweep, request.expert, request.sample] == (request.condition, request.noise)
    other = {(r.sweep, r.sample): r.condition for r in wanted("a4502-y") if r.sweep in RANGES}
    assert all(c != alone[sweep, None, number][0] for (sweep, number), c in other.items())
    assert wanted(seed=1)[6].condition != wanted()[6].condition


def test_seeds_never_move() -> None:
    """Written down once: results of years ago must come back."""
    assert (
        seed_of(0, "fivek", "a4501-x", "neutral", "", 0)
        == int.from_bytes(hashlib.sha256(b"0/fivek/a4501-x/neutral//0").digest()[:8], "big") // 2
    )
    first = next(request for request in wanted() if request.sweep == "random_1_2")
    draw = torch.Generator().manual_seed(seed_of(0, "fivek", "a4501-x", "random_1_2", 0, "c"))
    size = 2 - torch.rand(4, generator=draw, dtype=torch.float64)
    assert np.abs(first.condition) == pytest.approx(size.numpy())


# the stage


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """decode, attributes and a tiny model that obeys c and noise, under one root."""
    return build(tmp_path_factory.mktemp("sample"))


def build(root: Path) -> Path:
    """What the stage reads."""
    fake_chain.build(root, "fivek")
    train = tiny_train()
    pipe = new_pipeline(train, new_autoencoder(train.autoencoder), "fixed_small", seed=1)
    # away from the identity, so that c and noise show
    torch.nn.init.normal_(pipe.grid_head.layers[-1].weight, std=0.3, generator=generator("test"))
    pipe.save_pretrained(root / "work/train/fivek/model", safe_serialization=True)
    return root


@pytest.fixture
def here(chain: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(chain)
    return chain


def settings(**changes) -> Params:
    small = {"random_draws": 2, "axis_points": 3, "batch_size": 8}
    return fake_chain.params(sample=small | changes, runtime={"threads": 1})


def run(**changes) -> pd.DataFrame:
    sample.run(settings(**changes), "fivek")
    return pd.read_parquet("work/sample/fivek/samples.parquet")


def pictures() -> dict[str, np.ndarray]:
    folder = Path("work/sample/fivek")
    return {path.relative_to(folder).as_posix(): imagecodecs.imread(path) for path in sorted(folder.rglob("*.png"))}


def test_the_table_and_the_pictures(here: Path) -> None:
    table = run()
    assert list(table.columns) == COLUMNS
    manifest = pd.read_parquet("work/decode/fivek/manifest.parquet").query("status == 'ok'")
    each = 3 + 1 + 3 * 2 + 4 * 3
    assert table["photo_id"].value_counts().to_dict() == dict.fromkeys(manifest["photo_id"], each)
    assert table["expert"].notna().sum() == (table["sweep"] == "expert").sum() == 3 * len(manifest)
    assert set(table["split"]) == {"test"} and set(table["scheduler"]) == {"ddpm"}
    assert set(table["steps"]) == {settings().sample.steps}
    assert table["sample"].dtype.kind == table["seed"].dtype.kind == "i"
    assert not table.duplicated(["photo_id", "sweep", "expert", "sample"]).any() and table["path"].is_unique
    for name in ("split", "group", "licence", "camera", "categories"):
        facts = manifest.set_index("photo_id")[name]
        assert facts.nunique() > (name != "split") and (table[name] == table["photo_id"].map(facts)).all()
    c = table[[f"c_{name}" for name in ATTRIBUTES]].to_numpy()
    assert np.isfinite(c).all()
    truths = pd.read_parquet("work/attributes/fivek/attributes.parquet")
    joined = table[table["sweep"] == "expert"].merge(truths, on=["photo_id", "expert"], suffixes=("", "_truth"))
    assert all((joined[f"c_{name}"] == joined[f"c_{name}_truth"]).all() for name in ATTRIBUTES)

    made = pictures()
    assert set(made) == set(table["path"])
    size = manifest.set_index("photo_id")[["height", "width"]]
    for path, photo_id in zip(table["path"], table["photo_id"], strict=True):
        assert made[path].shape == (*size.loc[photo_id], 3) and made[path].dtype == np.uint8
    first = table[table["photo_id"] == manifest["photo_id"].iloc[0]].set_index(["sweep", "sample"])["path"]
    moved = [made[first["axis_brightness", number]].astype(int) for number in range(3)]
    assert np.abs(moved[0] - moved[2]).max() > 0


def test_again_the_same_bytes_and_with_other_batches_the_same_pictures(here: Path) -> None:
    def digests() -> dict[str, str]:
        files = Path("work/sample/fivek").rglob("*.*")
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    table = run()
    first, made = digests(), pictures()
    Path("work/sample/fivek/left_by_a_killed_run.png").write_bytes(b"x")
    run()
    assert digests() == first
    others = run(batch_size=5)
    pd.testing.assert_frame_equal(others, table)
    for path, image in pictures().items():
        assert np.abs(image.astype(int) - made[path]).max() <= 1


def test_one_photo_alone_gives_what_it_gives_among_others(here: Path) -> None:
    table, made = run(), pictures()
    path = Path("work/decode/fivek/manifest.parquet")
    manifest = pd.read_parquet(path)
    try:
        manifest.iloc[[2]].to_parquet(path)
        alone = run()
    finally:
        manifest.to_parquet(path, index=False)
    among = table[table["photo_id"] == manifest["photo_id"].iloc[2]].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, among)
    assert all((image == made[name]).all() for name, image in pictures().items())


def whole_stage() -> dict[str, bytes]:
    folder = Path("work/sample/fivek")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def counting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The photos that are retouched from now on, in their order."""
    seen, make = list[str](), sample._make

    def counted(pipe: object, source: Path, *words: object) -> None:
        seen.append(source.stem)
        make(pipe, source, *words)

    monkeypatch.setattr(sample, "_make", counted)
    return seen


def photo_ids() -> list[str]:
    manifest = pd.read_parquet("work/decode/fivek/manifest.parquet").query("status == 'ok' and split == 'test'")
    return manifest["photo_id"].tolist()


def test_parts_made_by_several_runs_are_gathered_to_the_same_bytes(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run()
    undivided, photos = whole_stage(), photo_ids()
    seen = counting(monkeypatch)
    for number in (2, 3):
        sample.run(settings(), "fivek", Part(number, 3))
    sample.run(settings(), "fivek", Part(3, 3))  # once more: nothing to do
    assert seen == photos[1::3] + photos[2::3] and whole_stage() == undivided
    assert "sample fivek, part 3 of 3" in capsys.readouterr().err
    shutil.rmtree("work/sample/fivek")
    sample.run(settings(seed=1), "fivek", Part(1, 3))
    run()  # makes what nobody made
    assert f"NOTE: {len(photos[0::3])} photos that were made by another model" in capsys.readouterr().err
    assert seen[len(photos[1::3] + photos[2::3]) :] == photos[0::3] * 2
    assert whole_stage() == undivided
    assert not Path("work/.resume/sample-fivek").exists()


def test_a_run_that_died_goes_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    undivided, photos = whole_stage(), photo_ids()
    seen, write, pictures_written = counting(monkeypatch), sample.write_png8, []

    def full(path: Path, image: np.ndarray) -> None:
        pictures_written.append(path)
        if len(pictures_written) == 30:  # in the middle of the second photo's
            raise OSError("No space left on device")
        write(path, image)

    monkeypatch.setattr(sample, "write_png8", full)
    with pytest.raises(OSError, match="No space left"):
        run()
    shutil.rmtree("work/sample/fivek")  # as DVC does before it starts a stage
    run()
    assert seen == photos[:2] + photos[1:] and whole_stage() == undivided


def test_a_precision_is_that_of_the_network(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[torch.dtype] = set()
    call = RetouchPipeline.call_unet

    def watched(pipe: RetouchPipeline, *given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with pipe.unet.conv_in.register_forward_hook(lambda _layer, _given, made: seen.add(made.dtype)):
            return call(pipe, *given)

    monkeypatch.setattr(RetouchPipeline, "call_unet", watched)
    run()
    exact = pictures()
    assert seen == {torch.float32}
    for precision, kind in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        seen.clear()
        run(precision=precision)
        apart = np.concatenate([np.abs(made.astype(int) - exact[path]).ravel() for path, made in pictures().items()])
        assert seen == {kind} and 0 < apart.max() <= 8 and apart.mean() < 0.5


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_a_picture_that_is_not_finite_is_refused_not_black(value: float) -> None:
    train, asked = tiny_train(), [wanted()[0]]
    pipe = new_pipeline(train, new_autoencoder(train.autoencoder), "fixed_small", seed=1)
    pipe.set_progress_bar_config(disable=True)
    photo, given = np.full((16, 16, 3), 0.5, np.float32), settings().sample
    assert len(list(retouched(pipe, photo, asked, given))) == 1
    torch.nn.init.constant_(pipe.grid_head.layers[-1].bias, value)
    with pytest.raises(UserError, match=r"a4501-x: with c = .* not finite in sample.precision fp32"):
        list(retouched(pipe, photo, asked, given))


def test_what_something_else_made_is_not_taken(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, photos = counting(monkeypatch), photo_ids()
    everything = Part(1, 1)

    def made(**changes: object) -> list[str]:
        seen.clear()
        sample.run(settings(**changes), "fivek", everything)
        return list(seen)

    assert made() == photos and made() == []
    assert made(splits=["val", "test"]) == []  # there is no other photo, and the same pictures
    assert made(seed=1) == made(batch_size=4) == made(random_draws=3) == made(precision="bf16") == photos
    weights = Path("work/train/fivek/model/unet/diffusion_pytorch_model.safetensors")
    before = weights.read_bytes()
    try:
        tensors = load_file(weights)
        tensors["conv_in.bias"] += 0.1
        save_file(tensors, weights)
        assert made() == photos
    finally:
        weights.write_bytes(before)
    assert made() == []
    picture = Path("work/decode/fivek", pd.read_parquet("work/decode/fivek/manifest.parquet")["input"].iloc[0])
    before = picture.read_bytes()
    try:
        write_picture(picture, 1 - read_srgb(picture))
        assert made() == photos[:1]
    finally:
        picture.write_bytes(before)


def test_killed_while_it_forgets_no_photo_is_taken_for_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Made(tmp_path / "kept", {"seed": 0})
    for photo in "ab":
        with kept.making(photo, "mark") as folder:
            (folder / "x.png").write_text("x")

    def killed(place: Path, **_: object) -> None:
        next(place.rglob("x.png")).unlink()
        raise SystemExit

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(SystemExit):
        kept.forget()
    assert not kept.has("a", "mark") and not kept.has("b", "mark")


def test_where_there_are_no_links_pictures_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError("Operation not permitted")

    kept = Made(tmp_path / "kept", {"seed": 0})
    with kept.making("a", "mark") as folder:
        (folder / "x.png").write_text("x")
    monkeypatch.setattr(os, "link", refused)
    kept.give("a", tmp_path / "out")
    assert (tmp_path / "out/x.png").read_text() == "x"


def test_two_runs_may_make_the_same_photo(tmp_path: Path) -> None:
    here, there = (Made(tmp_path / "kept", {"seed": 0}) for _ in range(2))
    with here.making("a", "mark") as ours, there.making("a", "mark") as theirs:
        (ours / "x.png").write_text("x")
        (theirs / "x.png").write_text("x")
    assert here.has("a", "mark") and [path.name for path in (tmp_path / "kept").glob("*/*")] == ["a"]
    assert not Made(tmp_path / "kept", {"seed": 1}).has("a", "mark")
    here.give("a", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.png"]


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2\n", "١/٢"])
def test_a_part_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="2/4, the second of four"):
        Part.read(text)
    assert Part.read("2/4").take("abcdefg") == ["b", "f"]


def test_nothing_to_sample_is_said_so(here: Path) -> None:
    path = Path("work/decode/fivek/manifest.parquet")
    manifest = pd.read_parquet(path)
    try:
        manifest.assign(status="quarantined").to_parquet(path)
        with pytest.raises(UserError, match=r"no usable photos in the splits \['test'\]"):
            run()
    finally:
        manifest.to_parquet(path, index=False)
