"""Files in and out: whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pandas as pd
import pytest

from diffretouch.errors import UserError
from diffretouch.files import figures, tables, workspace
from diffretouch.files.atomic import whole, write_json, write_text


def _fail_half_way(path: Path, error: Exception) -> None:
    with whole(path) as temporary:
        temporary.write_text("half of the n")
        raise error


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError):
        _fail_half_way(path, ZeroDivisionError())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_write_is_invisible_and_the_next_one_stands(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.tif"
    with whole(path) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.suffix == ".tif" and temporary.parent == path.parent and not path.exists()
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_files_own_name(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    as_pyarrow_says_it = OSError(errno.ENOSPC, "Error writing bytes to file")
    with pytest.raises(OSError, match="No space left on device") as caught:
        _fail_half_way(path, as_pyarrow_says_it)
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, whole(tmp_path / "a.txt"):
        (tmp_path / "source.txt").read_text()
    assert caught.value.filename == str(tmp_path / "source.txt")


def test_json_refuses_what_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"psnr": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_publishing_copies_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = workspace.stage_dir("embed", "fivek") / "tsne.csv"
    write_text(source, "x,y\n")
    workspace.publish(source, "fivek")
    write_text(source, "x,y\n1,2\n")
    workspace.publish(source, "fivek")
    assert Path("reports/fivek/tsne.csv").read_bytes() == source.read_bytes()
    assert len(list(Path("reports/fivek").iterdir())) == 1


def test_tables_say_what_is_missing_and_how_to_make_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = workspace.stage_dir("sample", "ppr10k") / "samples.parquet"
    with pytest.raises(UserError, match="dvc repro sample@ppr10k"):
        tables.read_table(path)
    tables.write_table(path, pd.DataFrame({"photo_id": ["a"]}))
    with pytest.raises(UserError, match=r"lacks the columns \['sweep'\]"):
        tables.read_table(path, ["photo_id", "sweep"])


def test_a_figure_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        with figures.style():
            figure, axes = figures.plt.subplots(figsize=(2, 1))
            axes.plot([0, 1])
            figures.save(figure, tmp_path / name, dpi=40)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_no_expert_has_our_colour() -> None:
    colours = figures.expert_colours("abcde")
    assert len(set(colours.values())) == 5 and figures.AMBER not in colours.values()
