"""The command line: what a person's mistakes and a full disk are answered with, and that the next run is right."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import yaml

from diffretouch import cli
from diffretouch.corpus.demo import write_demo
from tests import fake_chain

STAGES = ("decode", "attributes", "train", "sample", "evaluate", "embed", "study")


def run(*words: str) -> int:
    """`diffretouch WORDS` in this process: its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["diffretouch", *words])
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def write_params(folder: Path, **sections: dict) -> None:
    tree = fake_chain.params(**sections).model_dump(mode="json")
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    write_demo(root / "data", limit=2)
    return root / "data"


@pytest.fixture
def here(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with params.yaml and two photos a dataset (linked: replace files, do not write into them)."""
    shutil.copytree(demo, tmp_path / "data", copy_function=os.link)
    write_params(tmp_path, decode={"max_quarantined_share": 0.5})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What stands on stderr; never a traceback."""
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


# mistakes


def test_a_typo_in_params_is_answered_with_both_names(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = here / "params.yaml"
    path.write_text(path.read_text().replace("demosaic:", "demosiac:"))
    assert run("decode", "fivek") == 2
    text = said(capsys)
    assert "decode.demosiac: unknown key; did you mean 'demosaic'?" in text
    assert "params.yaml" in text
    assert not Path("work").exists()


@pytest.mark.parametrize("stage", STAGES)
def test_an_unknown_dataset_is_answered_with_the_known_ones(
    here: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(stage, "fivk") == 2
    assert "'fivk'" in (text := said(capsys)) and "fivek, ppr10k" in text


@pytest.mark.parametrize("words", [*((stage, "fivek") for stage in STAGES), ("report",), ("summary",)])
def test_outside_the_root_every_command_says_where_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    assert "root of the repository" in said(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (("attributes", "ppr10k"), "dvc repro decode@ppr10k"),
        (("train", "fivek"), "dvc repro decode@fivek"),
        (("sample", "fivek"), "dvc repro decode@fivek"),
        (("evaluate", "fivek"), "dvc repro decode@fivek"),
        (("embed", "fivek"), "dvc repro sample@fivek"),
        (("study", "fivek"), "dvc repro sample@fivek"),
        (("report",), "dvc repro decode@fivek"),
        (("summary",), "dvc repro evaluate@fivek"),
    ],
)
def test_a_missing_input_is_answered_with_the_command_that_makes_it(
    here: Path, words: tuple[str, ...], needed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 1
    assert f"`{needed}`" in said(capsys)


def test_a_missing_corpus_is_answered_with_how_to_get_one(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(here / "data")
    assert run("decode", "fivek") == 1
    assert "diffretouch demo-data" in said(capsys)


def test_too_many_broken_files_exit_1_and_are_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = {}
    for path in sorted((here / "data/fivek/dng").iterdir()):
        kept[path] = path.read_bytes()
        path.unlink()
        path.write_bytes(b"garbage")
    assert run("decode", "fivek") == 1
    out, err = capsys.readouterr()
    assert all(f"quarantined {path.stem}" in out for path in kept)
    assert "2 of 2 photos of fivek" in err and "dvc repro decode@fivek" in err and "Traceback" not in err
    for path, content in kept.items():
        path.write_bytes(content)
    assert run("decode", "fivek") == 0


def test_ctrl_c_exits_130_and_says_how_to_go_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("diffretouch.stages.decode.run", interrupt)
    assert run("decode", "fivek") == 130
    assert "interrupted: run the same command again" in said(capsys)


def test_a_forbidden_folder_is_named(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("work").write_text("a file in the folder's place")
    assert run("decode", "fivek") == 1
    assert re.search(r"^error: (Not a directory|File exists): work", said(capsys), re.M)


# demo data and profiles


def test_demo_data_refuses_a_corpus_of_your_own_and_says_what_to_do(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = here / "data/ppr10k/corpus.yaml"
    text = card.read_text()
    card.unlink()
    for content in (None, text.replace("simulated", "real", 1), "name: ["):
        if content is not None:
            card.write_text(content)
        assert run("demo-data") == 1
        answer = said(capsys)
        assert "data/ppr10k holds something that is no demo corpus" in answer
        assert "make repro" in answer and "--root" in answer
    assert len(list((here / "data/ppr10k/raw").iterdir())) == 2


def test_demo_data_replaces_demo_corpora_and_what_a_stopped_run_left(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("diffretouch.corpus.demo.CORPORA", _of_one_photo())
    (here / "data/.ppr10k.part").mkdir()
    (here / "data/.ppr10k.part/half.tif").write_bytes(b"x")
    (here / "data/.fivek.before").mkdir()
    shutil.rmtree(here / "data/ppr10k")
    assert run("demo-data") == 0
    out, err = capsys.readouterr()
    assert "make repro" in out
    assert "demo fivek: 1/1" in err
    assert sorted(path.name for path in (here / "data").iterdir()) == ["fivek", "ppr10k"]
    assert len(list((here / "data/fivek/dng").iterdir())) == len(list((here / "data/ppr10k/raw").iterdir())) == 1


def _of_one_photo() -> tuple:
    from dataclasses import replace

    from diffretouch.corpus.demo import CORPORA

    return tuple(replace(corpus, shots=corpus.shots[:1]) for corpus in CORPORA)


@pytest.mark.parametrize(
    ("cards", "writes"),
    [
        ({}, True),
        ({"fivek": "simulated"}, True),
        ({"ppr10k": "simulated"}, True),
        ({"fivek": "simulated", "ppr10k": "simulated"}, False),
        ({"fivek": "real"}, False),
        ({"ppr10k": "real"}, False),
    ],
)
def test_make_writes_the_demo_where_a_corpus_is_missing_and_none_is_real(
    tmp_path: Path, cards: dict[str, str], writes: bool
) -> None:
    """With stand-ins for the commands that make calls."""
    bin_dir = tmp_path / ".venv" / "bin"
    bin_dir.mkdir(parents=True)
    for command in ("diffretouch", "dvc"):
        (bin_dir / command).write_text(f'#!/bin/sh\necho "called {command} $*"\n')
        (bin_dir / command).chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(fake_chain.ROOT / name, tmp_path / name)
    (tmp_path / ".venv" / ".installed").touch()
    for dataset, provenance in cards.items():
        folder = tmp_path / "data" / dataset
        folder.mkdir(parents=True)
        (folder / "corpus.yaml").write_text(f"name: x\nprovenance: {provenance}\nlicence: y\n")
    done = subprocess.run(["make", "repro"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ("called diffretouch demo-data" in done.stdout) is writes
    assert "called dvc repro" in done.stdout and "called diffretouch summary" in done.stdout


def test_a_profile_takes_the_place_of_params(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (here / "params.yaml").read_bytes()
    shutil.copytree(fake_chain.ROOT / "profiles", here / "profiles")
    assert run("profile", "cpu") == 0
    assert (here / "params.yaml").read_bytes() == (here / "profiles/cpu.yaml").read_bytes()
    assert (here / "params.yaml.before").read_bytes() == before
    assert "dvc repro" in capsys.readouterr().out
    assert run("profile", "cpu") == 0 and "already" in capsys.readouterr().out
    assert (here / "params.yaml.before").read_bytes() == before
    assert run("profile", "gpu") == 2
    assert "cpu, fivek, ppr10k, tiny" in said(capsys)


@pytest.mark.parametrize(
    "command", [*STAGES, "report", "summary", "demo-data", "ingest", "profile", "convert", "compare"]
)
def test_help_teaches_what_is_read_what_is_written_and_what_comes_next(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, "--help") == 0
    text = capsys.readouterr().out
    assert "Reads:" in text and "Writes:" in text
    assert "Next:" in text or command == "summary"


# a full disk


@contextmanager
def no_file_over(size: int) -> Iterator[None]:
    """Writes past `size` bytes of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # Python ignores SIGXFSZ, so that write() fails instead
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def leftovers(folder: Path) -> list[Path]:
    """Half-written files."""
    return [path for path in folder.rglob(".*") if path.is_file()]


@pytest.mark.parametrize(
    ("stage", "size", "file"),
    [("decode", 200_000, "work/decode/fivek/input/a0001-flower_1.tif"), ("attributes", 1_000, "attributes.parquet")],
)
def test_a_file_that_cannot_be_written_is_named_in_one_line(
    here: Path, stage: str, size: int, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stage == "decode" or run("decode", "fivek") == 0
    capsys.readouterr()
    with no_file_over(size):
        assert run(stage, "fivek") == 1
    errors = [line for line in said(capsys).splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert re.match(f"error: File too large: .*{file}; run the same command again", errors[0])
    assert leftovers(here / "work") == []
    assert not list((here / "work").rglob(Path(file).name))

    assert run(stage, "fivek") == 0
    if stage == "decode":
        assert pd.read_parquet("work/decode/fivek/manifest.parquet")["status"].tolist() == ["ok", "ok"]


def test_a_really_full_disk(here: Path) -> None:
    """work/ on a disk of 1 MB, mounted where nobody but this process sees it."""
    own_mounts = ["unshare", "--mount", "sh", "-c"]
    work = here / "work"
    work.mkdir()
    try:
        subprocess.run([*own_mounts, "mount -t tmpfs -o size=1m none work"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk of its own can be mounted here: {error}")
    command = f"{sys.executable} -c 'from diffretouch.cli import main; main()' decode fivek"
    script = f"mount -t tmpfs -o size=1m none work && {command}; code=$?; find work -type f -name '.*'; exit $code"
    done = subprocess.run(
        [*own_mounts, script],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(fake_chain.ROOT)},
    )
    assert done.returncode == 1
    assert re.search(r"^error: No space left on device: work/decode/fivek/\S+\.tif; run the same", done.stderr, re.M)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert run("decode", "fivek") == 0
