"""Progress, in a log and on a real terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffretouch import progress
from diffretouch.progress import track

ROOT = Path(__file__).resolve().parent.parent
LINE = r"decode: (\d+)/(\d+), \d+\.\d( photos)?/s, \d+ s left"


def test_items_come_through_and_the_last_line_is_told(capsys) -> None:
    assert list(track(iter("abc"), "decode", 3)) == ["a", "b", "c"]
    told = capsys.readouterr()
    assert re.fullmatch(LINE + "\n", told.err), told.err
    assert told.out == ""


def test_lines_come_now_and_then_with_the_unit(capsys, monkeypatch) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_S", -1.0)
    list(track(range(3), "decode", 3, unit="photos"))
    told = capsys.readouterr().err.splitlines()
    assert [re.fullmatch(LINE, line)[1] for line in told] == ["1", "2", "3"]
    assert all(" photos/s" in line for line in told)


def test_what_is_up_to_date_is_told_and_counted_but_not_as_speed(capsys) -> None:
    for _ in track(range(2), "decode fivek", 5000, unit="photos", done=4998):
        time.sleep(0.1)
    first, last = capsys.readouterr().err.splitlines()
    assert first == "decode fivek: 4998 up to date, 2 to do"
    speed = re.fullmatch(r"decode fivek: 5000/5000, (\d+\.\d) photos/s, 0 s left", last)
    assert speed is not None
    assert float(speed[1]) <= 10, "two pauses of 0.1 s"


def test_nothing_to_do_is_one_line(capsys) -> None:
    assert list(track([], "decode fivek", 5000, done=5000)) == []
    assert capsys.readouterr().err == "decode fivek: 5000 up to date, 0 to do\n"
    assert list(track([], "decode fivek", 0)) == []
    assert capsys.readouterr().err == ""


def on_a_terminal(script: str) -> str:
    """What `script` shows on stderr where that is a terminal of 100 columns; its stdout is a pipe and stays empty."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm"}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:  # how Linux says that nobody holds the other side any more
            pass
        assert process.stdout is not None
        assert process.stdout.read() == b""
    os.close(ours)
    assert process.returncode == 0, shown
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


@pytest.mark.skipif(sys.platform != "linux", reason="a pseudo-terminal's end reads otherwise elsewhere")
def test_a_terminal_shows_a_bar_with_speed_and_time_left() -> None:
    shown = on_a_terminal(
        "import time\n"
        "from diffretouch.progress import track\n"
        "for _ in track(range(30), 'decode', 40, 'photos', done=10): time.sleep(0.05)\n"
    )
    assert shown.startswith("decode: 10 up to date, 30 to do")
    assert re.search(r"decode .* 1\d/40", shown)
    last = re.search(r"decode .* 40/40 (\d+\.\d) photos/s 0:00:00", shown.splitlines()[-1])
    assert last is not None
    assert float(last[1]) <= 20, "30 pauses of 0.05 s"
