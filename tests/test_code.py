"""What counts as other code."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffretouch import code

BEFORE = 'X = 1\n\n\ndef f(x: int) -> int:\n    """Words."""\n    return x + X\n'


@pytest.mark.parametrize(
    ("after", "same"),
    [
        (BEFORE.replace("Words", "Other words"), True),
        (BEFORE.replace("X = 1", "# why\nX  =  1\n'of X'"), True),
        (BEFORE.replace("X = 1", "X = 2"), False),
        (BEFORE.replace("x + X", "'Words' and x + X"), False),
    ],
    ids=["docstring", "comment and layout", "number", "string that is used"],
)
def test_words_about_code_are_not_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str, same: bool) -> None:
    monkeypatch.setattr(code, "ROOT", tmp_path)
    (tmp_path / "part").mkdir()
    (tmp_path / "part/one.py").write_text(BEFORE)
    before = code.code_fingerprint(["part"])
    (tmp_path / "part/one.py").write_text(after)
    assert (code.code_fingerprint(["part"]) == before) == same


def test_a_file_that_differs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "ROOT", tmp_path)
    (tmp_path / "part").mkdir()
    for name in ("one", "two", "other"):
        (tmp_path / f"part/{name}.py").write_text(BEFORE)
    before = code.code_marks(["part/one.py", "part"])
    (tmp_path / "part/two.py").write_text(BEFORE.replace("1", "2"))
    after = code.code_marks(["part/one.py", "part"])
    assert [name for name in before.keys() | after.keys() if before[name] != after[name]] == ["part/two.py"]
    assert list(after) == ["part/one.py", "part/other.py", "part/two.py"]
