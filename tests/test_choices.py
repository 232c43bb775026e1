"""benchmarks.choices: each choice fits the schema, and the process that trains it is told which it is."""

from __future__ import annotations

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
