"""benchmarks.choices: each choice fits the schema, and the process that trains it is told which it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import choices


@pytest.mark.parametrize("name", choices.CHOICES)
def test_the_process_that_trains_a_choice_is_told_which(name: str) -> None:
    asked = choices.parse(choices.words(name, 2))
    assert (asked.one, asked.name, asked.seeds) == (True, [name], [2])
    settings = choices.settings_of(name, 2).train
    assert settings.seed == 2
    assert all(
        getattr(settings, key) == value or list(getattr(settings, key)) == value
        for key, value in choices.CHOICES[name].items()
    )


def test_a_choice_nobody_knows_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        choices.parse(["lambda 1000"])
    assert "unknown: lambda 1000" in capsys.readouterr().err


def test_measuring_some_choices_leaves_the_others_and_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"commit": "c0ffee", "of": "these settings", "scenes": ["1", "2"]}
    found |= {"psnr": [20.0, 21.0], "slope": [[0.5] * 4] * 2}
    other = {"choice": "beta 20", "seed": 0} | found
    kept, out = tmp_path / "choices.json", tmp_path / "choices.csv"
    kept.write_text(json.dumps([other]))

    def run(command: list[str], **_options: Any) -> Any:
        name, seed = command[command.index("--one") + 1], int(command[-1])
        return SimpleNamespace(stdout=json.dumps({"choice": name, "seed": seed} | found))

    monkeypatch.setattr(choices, "KEPT", kept)
    monkeypatch.setattr(choices, "OUT", out)
    monkeypatch.setattr(choices, "current", lambda _before, _seeds: {})
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["choices", "lambda .5", "--seeds", "0"])
    choices.main()
    now = {(one["choice"], one["seed"]): one for one in json.loads(kept.read_text())}
    assert now.keys() == {("beta 20", 0), ("in use", 0), ("lambda .5", 0)} and now["beta 20", 0] == other
    printed = capsys.readouterr().out
    assert not out.exists() and "| lambda .5 | 1 | 20.50 |" in printed and "by commit: c0ffee 2." in printed
