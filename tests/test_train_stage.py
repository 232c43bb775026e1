"""The train stage as people run it: stopped at any moment, the same command goes on, and the result is the same."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from diffretouch.config import load
from diffretouch.model import RetouchPipeline
from diffretouch.stages import train
from diffretouch.training import ranks, resume
from tests.real_server import free_port
from tests.test_model_start import WEIGHTS, save_base, settings, sha256
from tests.train_start import STEPS, write_start

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")]
STATES = Path("work/.resume/train-fivek")
MODEL = Path("work/train/fivek/model")
COMMAND = [str(Path(sys.executable).parent / "diffretouch"), "train", "fivek"]
LEAVES_WITHIN_S = 30


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder before training: one train and one val photo of the demo, with their attributes."""
    root = tmp_path_factory.mktemp("start")
    write_start(root)
    manifest = pd.read_parquet(root / "work/decode/fivek/manifest.parquet")
    assert sorted(manifest["split"]) == ["train", "val"]
    return root


@pytest.fixture(scope="module")
def undisturbed(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which training ran through."""
    root = copy(start, tmp_path_factory.mktemp("undisturbed"))
    subprocess.run(COMMAND, cwd=root, check=True, capture_output=True, timeout=120)
    return root


def copy(start: Path, folder: Path) -> Path:
    shutil.copytree(start, folder, dirs_exist_ok=True, copy_function=os.link)
    return folder


def saved(root: Path) -> int:
    """When a state was last written; 0 before one is. A running training may remove one between two looks."""
    times = [0]
    for path in (root / STATES).glob("states-*/step-*.pt"):
        with suppress(FileNotFoundError):
            times.append(path.stat().st_mtime_ns)
    return max(times)


def stop(root: Path, number: signal.Signals) -> tuple[int, str]:
    """Run the command and send it a signal once it has saved a state of its own: exit code and stderr."""
    before = saved(root)
    with subprocess.Popen(COMMAND, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        try:
            wait_for(lambda: saved(root) > before or run.poll() is not None)
            assert run.poll() is None, run.communicate()[1]
            run.send_signal(number)
            _, said = run.communicate(timeout=LEAVES_WITHIN_S)
        finally:
            run.kill()
    return run.returncode, said


def wait_for(happened: Callable[[], bool], limit_s: float = 120) -> None:
    end = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)


def contents(root: Path) -> dict[str, bytes]:
    """Every file that training makes."""
    files = sorted(path for path in (root / "work/train/fivek").rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_stopped_twice_it_ends_with_the_bytes_of_an_undisturbed_run(
    start: Path, undisturbed: Path, tmp_path: Path
) -> None:
    root = copy(start, tmp_path)
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        returned, said = stop(root, number)
        assert returned == code, said
        assert "run the same command to go on" in said
        assert "Traceback" not in said
        assert saved(root)
        assert not (root / MODEL).exists()
    done = subprocess.run(COMMAND, cwd=root, check=True, capture_output=True, text=True, timeout=120)
    assert f"of {STEPS}" in done.stderr and "going on from step" in done.stderr
    assert not saved(root)
    ours, theirs = contents(root), contents(undisturbed)
    assert ours.keys() == theirs.keys()
    assert any(name.endswith(".safetensors") for name in ours)
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_asked_to_stop_while_it_measures_the_sliders_it_ends_like_an_undisturbed_run(
    start: Path, undisturbed: Path, tmp_path: Path
) -> None:
    root = copy(start, tmp_path)
    asked = (
        "import os, runpy, signal, sys, time; from diffretouch.stages import train; "
        "sys.argv = ['diffretouch', 'train', 'fivek']; "
        "train.mix_sliders = lambda *_: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(60)); "
        "runpy.run_module('diffretouch', run_name='__main__')"
    )
    stopped = subprocess.run([sys.executable, "-c", asked], cwd=root, capture_output=True, text=True, timeout=59)
    assert stopped.returncode == 143, stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert saved(root) and not (root / MODEL).exists()
    done = subprocess.run(COMMAND, cwd=root, check=True, capture_output=True, text=True, timeout=120)
    assert f"going on from step {STEPS}" in done.stderr
    ours, theirs = contents(root), contents(undisturbed)
    assert [name for name in theirs if ours.get(name) != theirs[name]] == []


def test_what_it_leaves_can_be_used(undisturbed: Path) -> None:
    pipe = RetouchPipeline.from_pretrained(undisturbed / MODEL)
    assert sum(value.numel() for value in pipe.unet.parameters()) > 0
    corpus = json.loads((undisturbed / "work/decode/fivek/corpus.json").read_text())
    told = {name: corpus[name] for name in ("provenance", "licence", "notes", "decode_profile")}
    scales = json.loads((undisturbed / "work/attributes/fivek/scales.json").read_text())
    assert pipe.config.origin == {"dataset": corpus["name"], **told, "attributes": scales}
    asked = load(undisturbed / "params.yaml").train
    assert pipe.config.condition_gain == asked.condition_gain
    assert (pipe.config.lowest_timestep, pipe.config.highest_timestep) == asked.pixel_timesteps
    assert pipe.config.num_inference_steps == asked.validation_steps
    assert pipe.config.last_timestep == asked.validation_last_timestep
    assert asked.slider_photos
    assert pipe.config.slider_mixing == torch.eye(4).tolist()  # a few steps teach no slider to work
    points = history(undisturbed)
    assert points["step"].to_list() == list(range(2, STEPS + 1, 2))
    curves = {path.stem for path in (undisturbed / "reports/fivek/training").rglob("*.tsv")}
    assert curves == set(points.columns) - {"step"} and "gradient_norm" in curves
    assert not saved(undisturbed)
    sheets = sorted(path.name for path in (undisturbed / "work/train/fivek/validation").iterdir())
    assert sheets == [f"step-{step:07d}.png" for step in range(8, STEPS + 1, 8)]


def trained(start: Path, folder: Path, train: dict[str, Any], runtime: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What a run with these settings says, and the saved model's index."""
    root = copy(start, folder)
    set_params(root, train, runtime)
    done = subprocess.run(COMMAND, cwd=root, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr, json.loads((root / MODEL / "model_index.json").read_text())


def set_params(root: Path, train: dict[str, Any], runtime: dict[str, Any]) -> None:
    """Change some settings of a copy."""
    tree = yaml.safe_load((root / "params.yaml").read_text())
    tree["train"] |= train
    tree["runtime"] |= runtime
    (root / "params.yaml").unlink()  # it may be a link to the original
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


def history(root: Path) -> pd.DataFrame:
    """Of a finished run."""
    return pd.read_json(root / "work/train/fivek/history.jsonl", lines=True)


@pytest.mark.parametrize(
    ("train", "runtime", "apart"),
    [
        ({}, {"gradient_checkpointing": True}, 1e-6),
        pytest.param({}, {"compile": True}, 1e-4, marks=pytest.mark.alone),
        ({"precision": "bf16"}, {}, 0.05),
        pytest.param({}, {"device": "cuda"}, 0.01, marks=GPU),
        pytest.param({"precision": "bf16"}, {"device": "cuda", "compile": True}, 0.05, marks=GPU),
    ],
    ids=["gradient checkpointing", "compiled", "bf16", "GPU", "GPU, bf16, compiled"],
)
def test_other_ways_to_compute_it_learn_the_same(
    start: Path, undisturbed: Path, tmp_path: Path, train: dict[str, Any], runtime: dict[str, Any], apart: float
) -> None:
    """The whole stage, validation and saving included: losses as near as the precision allows, the first ones at least.

    Later ones drift apart, as each step's rounding is the next one's weights.
    """
    if runtime.get("compile") and shutil.which("g++") is None:
        pytest.skip("torch.compile wants a C++ compiler on a CPU")
    said, _ = trained(start, tmp_path, train, runtime)
    ours, plain = history(tmp_path), history(undisturbed)
    assert list(ours.columns) == list(plain.columns) and len(ours) == len(plain)
    assert ours["loss"].iloc[0] == pytest.approx(plain["loss"].iloc[0], rel=apart)
    assert ours["loss"].to_list() == pytest.approx(plain["loss"].to_list(), rel=max(0.1, apart))
    line = said[said.index(f"train {STEPS}/{STEPS}: ") :].splitlines()[0]
    assert re.search(r"loss \d.*; [\d.]+ ground truths/s, [\d.]+ GiB, 0 s left", line)
    left = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("dvc.yaml")}
    assert not left and not (tmp_path / "dvclive").exists()  # dvclive's own pipeline and experiments stay out


def test_the_switches_reach_the_network(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reached(Exception):
        """With what the loop was given."""

    def fit(*, net: Any, **_: Any) -> None:
        raise Reached(net)

    threads = torch.get_num_threads()
    monkeypatch.setattr(train, "fit", fit)
    for on in (False, True):
        monkeypatch.chdir(copy(start, tmp_path / str(on)))
        set_params(Path(), {}, {"gradient_checkpointing": on, "compile": on})
        try:
            with pytest.raises(Reached) as reached:
                train.run(load(), "fivek")
        finally:
            torch.use_deterministic_algorithms(False)
            torch.set_num_threads(threads)
        unet = reached.value.args[0].unet
        assert unet.is_gradient_checkpointing is on
        assert (unet._compiled_call_impl is not None) is on


def test_a_start_from_stable_diffusion_says_so(start: Path, tmp_path: Path) -> None:
    base = save_base(tmp_path / "sd-base", linear=True)
    (base / "README.md").write_text("---\nlicense: openrail++\n---\n# A base\n")
    given = settings(base).model_dump(mode="json")
    names = ("channels", "attention", "layers_per_block", "norm_groups", "network_size", "condition_gain", "start")
    train = {name: given[name] for name in (*names, "autoencoder")} | {"steps": 2, "precision": "fp32"}
    root = tmp_path / "root"
    _, index = trained(start, root, train, {})
    weights = {part: sha256(base / part / WEIGHTS) for part in ("unet", "vae")}
    told = {"weights": "sd-base", "licence": "openrail++"}
    assert index["origin"]["start"] == {**told, "sha256": weights["unet"]}
    assert index["origin"]["autoencoder"] == {**told, "sha256": weights["vae"]}
    card = (root / MODEL / "README.md").read_text()
    assert "openrail++" in card and weights["unet"] in card and str(tmp_path) not in card


def test_asked_to_stop_before_it_learns_it_leaves_as_later(start: Path, tmp_path: Path) -> None:
    """During imports and preparation: exit code 143, and the next run goes on with what was prepared."""
    root = copy(start, tmp_path)
    parts = root / STATES / ".views.part"
    with subprocess.Popen(COMMAND, cwd=root, stderr=subprocess.PIPE, text=True) as run:
        try:
            wait_for(lambda: parts.exists() or run.poll() is not None)
            run.send_signal(signal.SIGTERM)
            _, said = run.communicate(timeout=LEAVES_WITHIN_S)
        finally:
            run.kill()
    assert run.returncode == 143, said
    assert "run the same command to go on" in said and "Traceback" not in said
    again = subprocess.run(COMMAND, cwd=root, check=False, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0 and not parts.exists(), again.stderr


def test_asked_to_stop_while_a_library_catches_everything_it_is_asked_again() -> None:
    code = """
import os, signal, time
from diffretouch.cli import chain

signal.signal(signal.SIGTERM, chain._leave)
chain.ASK_AGAIN_S = 0.2
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
except BaseException:
    pass
time.sleep(60)
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=50)
    assert ended.returncode == 143, ended.stderr


def test_asked_to_stop_when_all_is_done_it_ends_as_done(start: Path, tmp_path: Path) -> None:
    """As the interpreter is taken down, where signals have no handler any more: DVC would train again from nothing."""
    root = copy(start, tmp_path)
    code = """
import os, signal, sys
from diffretouch.cli import main

class Late:
    def __del__(self, kill=os.kill, pid=os.getpid(), write=os.write):
        write(2, b"asked to stop")
        kill(pid, 15)

late = Late()
sys.argv = ["diffretouch", "train", "fivek"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, check=False, capture_output=True, text=True, timeout=120
    )
    assert done.stderr.endswith("asked to stop"), done.stderr
    assert done.returncode == 0 and (root / MODEL / "model_index.json").exists() and not saved(root)


def test_another_run_in_between_takes_nothing_from_one_that_was_stopped(
    start: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Its states, its validation pictures and its curves are its own."""
    root = copy(start, tmp_path)
    stop(root, signal.SIGTERM)
    set_params(root, {"learning_rate": 0.002}, {})
    other = subprocess.run(COMMAND, cwd=root, check=False, capture_output=True, text=True, timeout=120)
    assert other.returncode == 0 and "train.learning_rate was 0.001, is 0.002" in other.stderr, other.stderr
    set_params(root, {"learning_rate": 0.001}, {})
    done = subprocess.run(COMMAND, cwd=root, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "going on from step" in done.stderr, done.stderr
    assert contents(root) == contents(undisturbed)


def test_two_processes_train_like_one_with_the_doubled_batch(start: Path, tmp_path: Path) -> None:
    """gloo on the CPU: the same losses to rounding, whether this package starts the processes or torchrun does.

    `accelerate launch` starts them through torchrun, one command a machine, where there are GPUs; here two machines are
    played by one, which accumulate besides.
    """
    found = {}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
    meet = ["--master_addr", "127.0.0.1", "--master_port", str(free_port())]
    machines = [[*torchrun, *meet, "--node_rank", rank, "-m", "diffretouch", "train", "fivek"] for rank in "01"]
    for name, commands, processes, batch, accumulation in (
        ("one", [COMMAND], 1, 4, 1),
        ("two", [COMMAND], 2, 2, 1),
        ("launched", machines, 1, 1, 2),
    ):
        root = copy(start, tmp_path / name)
        steps = {"batch_size": batch, "accumulation": accumulation, "steps": 8, "log_every": 1}
        set_params(root, steps, {"processes": processes})
        log = root / "log"
        with log.open("w") as file:
            started = [subprocess.Popen(command, cwd=root, stderr=file) for command in commands]
            try:
                assert [process.wait(180) for process in started] == [0] * len(started), log.read_text()
            finally:
                for process in started:
                    process.kill()
        found[name] = history(root)
    one = found.pop("one")
    for name, other in found.items():
        assert list(other.columns) == list(one.columns)
        for column in ("loss", "eps", "pixel", "control", "grid"):
            assert other[column].to_list() == pytest.approx(one[column].to_list(), abs=1e-5), (name, column)
        # Adam and clipping would hide gradients of another size
        norms = one["gradient_norm"].to_list()
        assert other["gradient_norm"].to_list() == pytest.approx(norms, rel=1e-4), name


def test_processes_that_train_together_leave_together(start: Path, tmp_path: Path) -> None:
    root = copy(start, tmp_path)
    set_params(root, {}, {"processes": 2})
    returned, said = stop(root, signal.SIGTERM)
    assert returned == 143 and "run the same command to go on" in said, said
    assert resume.SLOWEST_SAVE_S < resume.LEAVES_AFTER_S < ranks.GRACE_S < LEAVES_WITHIN_S
