"""DVC at the size of a laboratory's corpora: link types, everyday commands, remotes, the form of decode's pictures.

`python -m benchmarks.dvc_size [--files 20000] [--pictures 30000] [--folder DIR] [--reflinks DIR] [PART ...]` measures
in throw-away repositories below DIR (about 6 GB; the system's temporary folder if not named) and writes
benchmarks/results/dvc-size.{json,md}. Link types are measured below `--reflinks` too: a folder of XFS or Btrfs.
Parts: links, everyday, remotes, bytes, forms; without a name, all. Parts not named keep their earlier results.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import _dvc_corpora, _dvc_forms
from benchmarks._dvc_report import report
from benchmarks._dvc_scratch import Case, Took
from diffretouch.files.atomic import write_json, write_text

RESULTS = Path("benchmarks/results/dvc-size.json")
PARTS = ("links", "everyday", "remotes", "bytes", "forms")


def cases(part: str, asked: argparse.Namespace) -> Iterator[tuple[str, Path, Callable[[Path], Case]]]:
    """What a part compares: a column's heading, the folder to measure in, and the measurement."""
    files, photos = asked.files, asked.pictures // len(_dvc_forms.PICTURES)
    if part == "links":
        of = partial(_dvc_corpora.links, files=files)
        yield "copy", asked.folder, partial(of, link_type="copy")
        yield "copy, add --no-relink", asked.folder, partial(of, link_type="copy", relink=False)
        for kind in ("hardlink", "symlink"):
            yield kind, asked.folder, partial(of, link_type=kind)
        for kind in ("copy", "hardlink", "reflink") if asked.reflinks else ():
            yield f"{kind}, {file_system(asked.reflinks)}", asked.reflinks, partial(of, link_type=kind)
    elif part == "everyday":
        for number in (files // 4, files):
            yield f"{number:,} files", asked.folder, partial(_dvc_corpora.everyday, files=number)
    elif part == "remotes":
        for layout in _dvc_corpora.LAYOUTS:
            yield layout, asked.folder, partial(_dvc_corpora.remotes, files=files, layout=layout)
    elif part == "bytes":
        yield f"{_dvc_corpora.LARGE_FILES} files", asked.folder, _dvc_corpora.volume
    else:
        for form in _dvc_forms.FORMS:
            yield form, asked.folder, partial(_dvc_forms.measure, form=form, files=files, photos=photos)


def main() -> None:
    """Measure the parts asked for, one after the other; the results are written anew after every case."""
    asked = arguments()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for part in asked.parts or PARTS:
        results[part] = {"facts": facts(asked), "cases": {}}
        for heading, folder, measure in cases(part, asked):
            print(f"== {part}: {heading}", flush=True)
            top = Path(tempfile.mkdtemp(prefix="dvc-size-", dir=folder))
            try:
                found = measure(top)
            finally:
                shutil.rmtree(top)
            results[part]["cases"][heading] = {k: asdict(v) if isinstance(v, Took) else v for k, v in found.items()}
            write_json(RESULTS, results)
            write_text(RESULTS.with_suffix(".md"), report(results))
    print(report(results))


def arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--files", type=int, default=20_000, help="files below data/")
    parser.add_argument("--pictures", type=int, default=30_000, help="pictures decode writes, 6 a photo")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--reflinks", type=Path, help="a folder of a file system that has reflinks")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: expected any of {', '.join(PARTS)}")
    return asked


def facts(asked: argparse.Namespace) -> dict[str, Any]:
    """When, on what, and beside what the figures were taken."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "file system": file_system(asked.folder),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("dvc", "dvc-data")},
        "files": asked.files,
        "pictures": asked.pictures,
        "load average before": round(os.getloadavg()[0], 1),
    }


def file_system(folder: Path) -> str:
    """The type of the file system a folder lies on."""
    command = ["df", "--output=fstype", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]


if __name__ == "__main__":
    main()
