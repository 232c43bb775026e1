"""The house itself: pins, ranges, targets and the lightness of the command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line) for line in lines)
    return {str(canonicalize_name(name)): version for name, version in (line.split("==") for line in lines)}


def test_every_range_admits_its_pin() -> None:
    for text in [*PROJECT["dependencies"], *chain.from_iterable(PROJECT["optional-dependencies"].values())]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins()[canonicalize_name(wanted.name)]), wanted


def test_everything_installed_is_pinned() -> None:
    tools = {"pip", "setuptools", "wheel", "diffretouch"}
    # a CUDA build of torch brings its own libraries
    installed = {canonicalize_name(found.name): found.version for found in distributions()}
    of_cuda = {name for name in installed if re.match(r"nvidia-.*-cu\d+|nvidia-c|triton|cuda-", name)}
    assert set(installed) - set(pins()) - tools - of_cuda == set()


def test_nothing_drags_in_cuda_on_a_cpu_build() -> None:
    import torch

    if torch.version.cuda:
        pytest.skip("this is a CUDA build of torch")
    names = {canonicalize_name(found.name) for found in distributions()}
    assert [name for name in names if re.match(r"nvidia-(?!ml-py)|cuda-|triton", name)] == []
    assert "transformers" not in names


def test_help_names_every_target_in_one_line() -> None:
    done = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    told = [line.split()[1] for line in done.stdout.splitlines()]
    assert set(told) >= {"repro", "test", "lint", "bench", "quality", "clean"}
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert phony is not None
    assert set(told) == set(phony[1].split())


def test_cleaning_leaves_unfinished_trainings_and_verdicts(tmp_path: Path) -> None:
    for name in ("Makefile", ".gitignore"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    kept = ["work/.resume/train-fivek/state", "work/verdicts/fivek-1/verdict.html", "data/fivek/corpus.yaml"]
    gone = ["work/train/fivek/model/weights", "work/.more/file", "work/file", "reports/fivek/metrics.html"]
    for name in kept + gone:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for _ in range(2):
        subprocess.run(["make", "-s", "clean"], cwd=tmp_path, check=True)
        assert [name for name in kept + gone if (tmp_path / name).exists()] == kept


def test_an_old_python_is_answered_with_what_to_type(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
    old.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(
        ["make", "test", f"PYTHON={old}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
    assert "Python 3.9.2" in done.stderr


def test_ci_runs_what_people_run() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    called = re.findall(r"^(DIFFRETOUCH_ALONE=1 )?make (\w+)", script.read_text(), re.M)
    assert called == [("", "lint"), ("", "test"), ("DIFFRETOUCH_ALONE=1 ", "test"), ("", "repro"), ("", "repro")]


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
def test_help_is_light(words: list[str]) -> None:
    script = (
        "import sys, diffretouch.cli as cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'diffusers', 'matplotlib', 'sklearn', 'prefect', 'dvc', 'pandas'}\n"
        "print('heavy:', *sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("heavy:")


def test_the_licence_is_apaches() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["license"] == "Apache-2.0"
