"""A corpus of many files under DVC: link types, everyday commands, remotes, and the price of a byte."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import yaml

from benchmarks._dvc_scratch import Case, Scratch, bytes_in, fill, free_bytes

# both corpora's layouts: half the files are FiveK's, half PPR10K's
FOLDERS = (
    *(f"fivek/{name}" for name in ("dng", "tiff16_a", "tiff16_b", "tiff16_c", "tiff16_d", "tiff16_e")),
    *(f"ppr10k/{name}" for name in ("raw", "source", "target_a", "target_b", "target_c", "masks")),
)
# a 16-bit picture of 480 pixels' short edge, deflated
PICTURE_BYTES, LARGE_FILES = 1_700_000, 600
FILES = "files in data/"
DISK = "disk taken besides the own files, times their size"
LAYOUTS = ("data.dvc", "a .dvc file a dataset")
STAGE = {"cmd": "mkdir -p work && echo done > work/fivek", "deps": ["data/fivek"], "outs": ["work/fivek"]}


def names(files: int) -> list[str]:
    """Where that many files lie below data/, spread over FOLDERS."""
    return [f"{FOLDERS[k % len(FOLDERS)]}/{k:06}.bin" for k in range(files)]


def with_data(folder: Path, files: int, link_type: str = "reflink,copy") -> Scratch:
    """A repository whose data/ holds that many files, not yet added."""
    scratch = Scratch.new(folder, link_type)
    fill(scratch.folder / "data" / name for name in names(files))
    return scratch


def links(top: Path, *, files: int, link_type: str, relink: bool = True) -> Case:
    """`dvc add` and `dvc checkout` of a data/ of hard links to somebody's own files, and what became of those files."""
    scratch, own = Scratch.new(top / "repo", link_type), top / "own"
    free = [free_bytes(top)]
    fill(own / name for name in names(files))
    free.append(free_bytes(top))
    for name in names(files):
        path = scratch.folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(own / name)
    mine, data = own / names(1)[0], scratch.folder / "data" / names(1)[0]
    found: Case = {"`dvc add data`, the first": scratch.dvc("add", *(() if relink else ("--no-relink",)), "data")}
    free.append(free_bytes(top))
    # other processes write to the disk too, so it is known to a tenth
    found[DISK] = max(0.0, round((free[1] - free[2]) / (free[0] - free[1]), 1))
    found["mode of one's own files after"] = f"{stat.S_IMODE(mine.stat().st_mode):o}"
    cached = {path.stat().st_ino for path in scratch.cache.rglob("*") if path.is_file()}
    found["one's own file is the cache's file"] = "yes" if mine.stat().st_ino in cached else "no"
    found["data/ holds"] = ("symlinks" if data.is_symlink() else "files") + f" of mode {data.stat().st_mode & 0o777:o}"
    found["`dvc status` after"] = scratch.median("status")
    shutil.rmtree(scratch.folder / "data")
    found["`dvc checkout` into an empty work tree"] = scratch.dvc("checkout")
    found["`dvc status` after that"] = scratch.median("status")
    return found


def everyday(top: Path, *, files: int) -> Case:
    """One repository's daily commands; data.dvc covers all of data/."""
    empty = Scratch.new(top / "empty")
    found: Case = {FILES: files, "`dvc status` of an empty repository: starting DVC": empty.median("status")}
    scratch = with_data(top / "repo", files)
    fivek = scratch.folder / "data/fivek/dng"
    found["`dvc add data`, the first"] = scratch.dvc("add", "data")
    found["`dvc status`, no change"] = scratch.median("status")
    found["`dvc data status`, no change"] = scratch.median("data", "status")
    found["`dvc add data`, no change"] = scratch.median("add", "data")
    fill([fivek / "000000.bin"], seed=1)
    found["`dvc status`, one file changed"] = scratch.dvc("status")
    found["`dvc add data`, one file changed"] = scratch.dvc("add", "data")
    fill([fivek / "new.bin"], seed=2)
    found["`dvc add data`, one file added"] = scratch.dvc("add", "data")
    fill([fivek / "000000.bin"], seed=3)
    found["`dvc add data/fivek`, one file changed"] = scratch.dvc("add", "data/fivek")
    fill([fivek / "000000.bin"], seed=4)
    found["`dvc add data/fivek/dng/000000.bin`, that file changed"] = scratch.dvc("add", "data/fivek/dng/000000.bin")
    (fivek / "new.bin").unlink()
    found["`dvc add data`, one file removed"] = scratch.dvc("add", "data")
    shutil.rmtree(scratch.database)
    found["`dvc status`, hash database lost: all hashed again"] = scratch.dvc("status")
    found["size of the folder's list in the cache, MB"] = (
        max(p.stat().st_size for p in scratch.cache.rglob("*.dir")) / 1e6
    )
    return found


def remotes(top: Path, *, files: int, layout: str) -> Case:
    """Push, and pull of one dataset from a folder, where data/ has one .dvc file or each dataset its own."""
    scratch = with_data(top / "repo", files)
    (scratch.folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"decode": STAGE}}))
    targets = ["data"] if layout == LAYOUTS[0] else ["data/fivek", "data/ppr10k"]
    found: Case = {"`dvc add`, the first": scratch.dvc("add", *targets)}
    scratch.dvc("repro")
    found["`dvc push`, the first, to a folder"] = scratch.dvc("push")
    found["`dvc push`, nothing new"] = scratch.median("push")
    one = scratch.folder / "data/fivek/dng/000000.bin"
    fill([one], seed=1)
    found["`dvc add data/fivek`, one file changed"] = scratch.dvc("add", "data/fivek")
    found["`dvc push`, one file changed"] = scratch.dvc("push")
    scratch.dvc("repro")
    scratch.dvc("push")
    other = scratch.clone("clone")
    found["`dvc pull data/fivek` into a clone: half the files"] = other.dvc("pull", "data/fivek")
    found["`dvc pull data/fivek`, nothing new"] = other.median("pull", "data/fivek")
    found["`dvc status decode` there"] = other.median("status", "decode")
    found["`dvc repro --single-item decode` there"] = other.dvc("repro", "--single-item", "decode")
    found["`dvc repro --allow-missing decode` there"] = other.dvc("repro", "--allow-missing", "decode")
    found["`dvc repro decode` there"] = other.dvc("repro", "decode")
    before, after = tracked(scratch.folder), tracked(other.folder)
    found["files the .dvc files name, then after that repro"] = f"{before:,} → {after:,}"
    other.git("checkout", "--quiet", ".")
    found["`dvc pull` of the rest"] = other.dvc("pull")
    found["`dvc push data/fivek`, then `dvc push`: files missing in a new remote"] = missing_after_partial_push(scratch)
    return found


def tracked(folder: Path) -> int:
    """How many files all .dvc files below a repository name."""
    documents = [yaml.safe_load(path.read_text()) for path in folder.rglob("*.dvc") if path.is_file()]
    return sum(out["nfiles"] for document in documents for out in document["outs"])


def missing_after_partial_push(scratch: Scratch) -> int:
    """Files of a complete cache that a second remote lacks after one dataset was pushed to it, and then everything."""
    second = scratch.folder.with_name("second")
    scratch.dvc("remote", "add", "--quiet", "second", str(second))
    scratch.dvc("push", "--remote", "second", "data/fivek")
    scratch.dvc("push", "--remote", "second")
    held = {path.name for path in second.rglob("*")}
    return sum(Path(name).name not in held for name in current(scratch))


def current(scratch: Scratch) -> list[str]:
    """Names in the cache of every file that the .dvc files name now."""
    found: list[str] = []
    for path in scratch.folder.rglob("*.dvc"):
        if path.is_file():
            digest = yaml.safe_load(path.read_text())["outs"][0]["md5"]
            listed = json.loads((scratch.cache / "files/md5" / digest[:2] / digest[2:]).read_text())
            found += [f"{entry['md5'][:2]}/{entry['md5'][2:]}" for entry in listed]
    return found


def volume(top: Path) -> Case:
    """Files of a real picture's size: what hashing and caching cost by the byte."""
    scratch = Scratch.new(top / "repo")
    fill((scratch.folder / f"data/{k:04}.bin" for k in range(LARGE_FILES)), low=PICTURE_BYTES, high=PICTURE_BYTES)
    found: Case = {"MB": bytes_in(scratch.folder / "data") / 1e6}
    hashing = scratch.dvc("add", "--no-commit", "data")
    found["`dvc add --no-commit data`: hash"] = hashing
    found["`dvc add data` after that: copy to the cache, and again to data/"] = scratch.dvc("add", "data")
    found["`dvc push`: copy to a folder"] = scratch.dvc("push")
    shutil.rmtree(scratch.folder / "data")
    found["`dvc checkout`: copy to data/"] = scratch.dvc("checkout")
    start = Scratch.new(top / "empty").median("status").seconds
    found["MB hashed a second, less the start of DVC"] = (
        bytes_in(scratch.folder / "data") / 1e6 / (hashing.seconds - start)
    )
    return found
