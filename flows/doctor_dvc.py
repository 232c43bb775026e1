"""What the doctor looks at with DVC: cache, remote, who holds its locks, the corpora's checksums, models in use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from dvc.exceptions import DvcException
from dvc.repo import Repo

from diffretouch.doctor.disk import check_links, check_room
from diffretouch.doctor.finding import Finding
from diffretouch.errors import UserError
from flows import clone, dvc_process, registry, workspace

STATUS_S = 8
"""A corpus whose hashes DVC has forgotten is read whole, which takes longer."""


def check_dvc(root: Path, *, full: bool) -> list[Finding]:
    """Findings about the DVC project in `root`."""
    try:
        with Repo(str(root)) as repo:
            cache, types = Path(repo.cache.local.path), repo.config["cache"].get("type")
            folder, remotes = Path(repo.tmp_dir), repo.config["remote"]
            default = repo.config["core"].get("remote")
    except DvcException as error:
        return [Finding("fault", "DVC", f"{root} cannot be read as a DVC project: {error}", "dvc doctor")]
    cache.mkdir(parents=True, exist_ok=True)
    asked = [types] if isinstance(types, str) else types
    found = [check_room(cache, "DVC's cache"), check_links(cache, root, asked)]
    found.append(_remote(root, default, remotes, full))
    return [*found, *_locks(folder), *_corpora(root), *_models(root)]


def _remote(root: Path, default: str | None, remotes: dict[str, Any], full: bool) -> Finding:
    if default is None:
        words = "no default remote: models and corpora are in this machine's cache only, and dvc push has nowhere to go"
        return Finding("note", "DVC remote", words, "dvc remote add -d NAME URL")
    url = str(remotes.get(default, {}).get("url", ""))
    place = Path(url)
    if "://" in url:
        if not full:
            return Finding("note", "DVC remote", f"{default} ({url}) was not asked", "python -m flows.doctor --full")
        return _ask(root, default, url)
    if not place.is_dir():
        return Finding("fault", "DVC remote", f"{default}: {place} is not there", f"mount or make it: mkdir -p {place}")
    if not os.access(place, os.W_OK):
        return Finding("fault", "DVC remote", f"{default}: {place} cannot be written", f"chmod u+w {place}")
    return Finding("good", "DVC remote", f"{default}: {place}, can be written")


def _ask(root: Path, name: str, url: str) -> Finding:
    command = [sys.executable, "-m", "dvc", "status", "--cloud", "--remote", name]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=60)
    except subprocess.TimeoutExpired:
        return Finding("fault", "DVC remote", f"{name} ({url}) did not answer within 60 s", "dvc status --cloud")
    if done.returncode:
        return Finding("fault", "DVC remote", f"{name} ({url}): {done.stderr.strip()[-200:]}", "dvc status --cloud")
    return Finding("good", "DVC remote", f"{name} ({url}) answers")


def _locks(folder: Path) -> Iterator[Finding]:
    """Who holds `.dvc/tmp/lock`, and the paths in `rwlock` whose owners have died."""
    record = folder / "rwlock"
    if owner := dvc_process.lock_owner(folder):
        yield Finding("note", "DVC lock", f"a dvc command runs here now: process {owner}", f"ps -fp {owner}")
    if words := workspace.holder(folder.parent.parent):
        yield Finding("note", "chain", words, "python -m flows.reproduce --wait (goes on when it has ended)")
    try:
        entries = json.loads(record.read_text()) if record.exists() else {}
    except ValueError:
        yield Finding("fault", "DVC lock", f"{record} was left half written by a killed dvc", f"rm {record}")
        return
    owners = [owner for entry in entries.values() for owner in _owners(entry)]
    dead = sorted({owner["pid"] for owner in owners if not psutil.pid_exists(owner["pid"])})
    alive = sorted({owner["pid"] for owner in owners} - set(dead))
    if dead:
        words = f"{record} names processes that have died: {', '.join(map(str, dead))}; the next dvc forgets them"
        yield Finding("note", "DVC lock", words, "dvc status")
    if alive:
        words = f"stages run: processes {', '.join(map(str, alive))} hold paths"
        yield Finding("note", "DVC lock", words, f"ps -fp {','.join(map(str, alive))}")
    if not owners:
        yield Finding("good", "DVC lock", "nobody holds a path")


def _owners(entry: dict[str, Any]) -> list[dict[str, Any]]:
    return [*([entry["write"]] if entry.get("write") else []), *entry.get("read", [])]


def _corpora(root: Path) -> Iterator[Finding]:
    """Whether data/ is what its .dvc files name, as far as DVC can tell within some seconds."""
    names = clone.corpora(root)
    if not names:
        yield Finding("fault", "data.dvc", "no .dvc file tracks data/", "dvc add data && git add data.dvc")
        return
    command = [sys.executable, "-m", "dvc", "status", "--json", *names]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=STATUS_S)
    except subprocess.TimeoutExpired:
        words = f"dvc status took more than {STATUS_S} s: its hashes of data/ are not known any more, or dvc is busy"
        yield Finding("note", "data.dvc", words, f"dvc status {' '.join(names)}")
        return
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["no word"]
        yield Finding("note", "data.dvc", f"dvc status failed: {said[0]}", f"dvc status {' '.join(names)}")
        return
    found = json.loads(done.stdout or "{}")
    for name in names:
        outs = {out: state for entry in found.get(name, []) for out, state in entry.get("changed outs", {}).items()}
        states = set(outs.values())
        if "modified" in states:
            words = f"{name} and the files beside it differ: stages would take them as new"
            mend = f"dvc add {name.removesuffix('.dvc')} (adopt them) or dvc checkout {name} (go back)"
            yield Finding("fault", "data.dvc", words, mend)
        elif states == {"not in cache"} and all((root / out).exists() for out in outs):
            words = f"DVC's cache lacks what {name} names, so DVC cannot tell whether that is what lies beside it"
            yield Finding(
                "note", "data.dvc", words, f"dvc commit {name} (puts it there; git diff {name} shows a change)"
            )
        elif states:
            words = f"what {name} names is not all here: {', '.join(sorted(states))}"
            yield Finding("note", "data.dvc", words, f"dvc pull {name} (the demo: diffretouch demo-data)")
        else:
            yield Finding("good", "data.dvc", f"{name} is what lies beside it")


def _models(root: Path) -> Iterator[Finding]:
    """The models in use, and their verdicts."""
    try:
        rows = [row for row in registry.rows(root) if row.use]
    except UserError as error:
        yield Finding("fault", "models", str(error), "git status")
        return
    if not rows:
        yield Finding("note", "models", "none is in use", "python -m flows.retrain")
    for row in rows:
        try:
            words = registry.objection(root, row.release)
        except UserError as error:
            yield Finding("fault", "models", f"{row.release.name} is in use: {error}", "diffretouch profile cpu")
            continue
        if words:
            yield Finding(
                "fault", "models", f"in use: {words}", f"python -m flows.retrain --dataset {row.release.dataset}"
            )
        else:
            yield Finding("good", "models", f"{row.release.name} is in use, with its verdict")
