"""decode on a disk that fills up, training killed: the next run ends as if it never had been."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from diffretouch.corpus.demo import write_demo
from tests import fake_chain
from tests.kill import COMMAND, digests, environment
from tests.kill_train import kill_while_training
from tests.train_start import write_start

PHOTOS = 2
MOUNT = ["unshare", "--mount", "sh", "-c"]
# the disk is seen by these commands alone, and gone after them
SCRIPT = """
mount -t tmpfs -o size=$1 none work
shift
"$@" 2> full.txt
echo $? > code.txt
mount -o remount,size=1g work
"$@" > again.txt 2>&1 || exit 1
cp -r work copied
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root where the stage has run."""
    root = tmp_path_factory.mktemp("undisturbed")
    write_demo(root / "data", limit=PHOTOS)
    shutil.copyfile(fake_chain.ROOT / "params.yaml", root / "params.yaml")
    subprocess.run(COMMAND, cwd=root, env=environment(), check=True, capture_output=True)
    return root


# it fills up with a picture, with the journal's second line, with the tables
@pytest.mark.parametrize(("share", "pages"), [(0.5, 0), (1, 1), (1, 4)], ids=["picture", "journal", "tables"])
def test_on_a_disk_that_was_full_the_next_run_is_right(
    undisturbed: Path, tmp_path: Path, share: float, pages: int
) -> None:
    shutil.copytree(undisturbed / "data", tmp_path / "data", copy_function=os.link)
    shutil.copyfile(undisturbed / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "work").mkdir()
    page = os.sysconf("SC_PAGESIZE")
    pictures = [path.stat().st_size for path in (undisturbed / "work/decode/fivek").glob("*/*")]
    needed = sum(-(-size // page) * page for size in pictures)
    words = [*MOUNT, SCRIPT, "sh", str(int(needed * share) + pages * page), *COMMAND]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"no disk of its own can be mounted here: {done.stderr.splitlines()[0]}")
    said = (tmp_path / "full.txt").read_text()
    assert (tmp_path / "code.txt").read_text() == "1\n", said
    assert re.search(r"^error: No space left on device: .*work/\S+; run the same command again", said, re.M), said
    assert "Traceback" not in said
    assert done.returncode == 0, (tmp_path / "again.txt").read_text()
    assert digests(tmp_path / "copied/decode/fivek") == digests(undisturbed / "work/decode/fivek")


@pytest.mark.slow
def test_training_killed_at_two_moments_and_run_again(tmp_path: Path) -> None:
    """`make soak` does it at twenty."""
    write_start(tmp_path)
    kill_while_training(tmp_path, kills=2, seed=0)
