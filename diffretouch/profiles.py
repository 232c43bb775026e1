"""Profiles: whole parameter files for one purpose, of which one is the params.yaml in use."""

from __future__ import annotations

import shutil
from pathlib import Path

from diffretouch.config import PARAMS, load
from diffretouch.errors import ConfigError
from diffretouch.files.atomic import whole


def use(name: str, root: Path = Path()) -> bool:
    """Make profiles/NAME.yaml the params.yaml of `root`; whether that changed anything.

    The one before is kept as params.yaml.before.

    Raises:
        ConfigError: there is no such profile, or it is not what the schema expects.
    """
    known = {path.stem: path for path in sorted((root / "profiles").glob("*.yaml"))}
    if name not in known:
        there = ", ".join(known) or "none; run this from the repository root"
        raise ConfigError(f"no profile {name!r}: profiles/ has {there}")
    load(known[name])
    params = root / PARAMS
    if params.exists():
        if params.read_bytes() == known[name].read_bytes():
            return False
        shutil.copyfile(params, params.with_suffix(".yaml.before"))
    with whole(params) as temporary:
        shutil.copyfile(known[name], temporary)
    return True
