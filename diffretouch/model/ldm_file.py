"""Opening a Lightning checkpoint without running anything that it holds."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from shlex import quote

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from diffretouch.errors import UserError
from diffretouch.model.ldm_keys import few

EXPECTED = "expected a Lightning checkpoint such as adobe.ckpt or ppr.ckpt: a dictionary with the entry state_dict"


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of its `state_dict`, on the CPU, and the names of the entries beside it.

    Tensors of an intact file lie in it until they are used (a memory map). Raises UserError when the file is absent,
    damaged, holds objects other than tensors and plain values, or no `state_dict` of tensors.
    """
    _refuse_damage(path)
    try:
        foreign = sorted(get_unsafe_globals_in_checkpoint(path))
        tree = None if foreign else torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (UnpicklingError, RuntimeError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read as tensors and plain values: {error}; {EXPECTED}") from error
    if foreign:
        raise UserError(
            f"{path} holds objects beside tensors and plain values: {', '.join(foreign)}. Making them would run code "
            "that the file chooses, so nothing of it is read. If you trust it, take its tensors out where nothing can "
            "be harmed (a container without network), and convert the file that this writes:\n"
            "  python -c \"import sys, torch; tree = torch.load(sys.argv[1], map_location='cpu', weights_only=False); "
            f"torch.save({{'state_dict': dict(tree['state_dict'])}}, sys.argv[2])\" {quote(str(path))} tensors.ckpt"
        )
    if not isinstance(tree, Mapping) or not isinstance(tree.get("state_dict"), Mapping):
        found = f"a dictionary of {few(tree)}" if isinstance(tree, Mapping) else f"a {type(tree).__name__}"
        raise UserError(f"{path} holds {found}; {EXPECTED}")
    state = dict(tree["state_dict"])
    if odd := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise UserError(f"{path}: state_dict holds more than tensors: {few(odd)}")
    return state, sorted(map(str, tree.keys() - {"state_dict"}))


def _refuse_damage(path: Path) -> None:
    """Raise UserError unless every record of the archive has its checksum."""
    if not path.is_file():
        raise UserError(f"{path} not found; {EXPECTED}")
    broken = None
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                broken = archive.testzip()
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
            broken = str(error)  # what zipfile raises over damaged archives
    if broken is not None:
        raise UserError(
            f"{path} is damaged or no checkpoint ({broken}); {EXPECTED}, as torch.save writes it: a zip archive with "
            "checksums. Compare its size with the published one, and fetch it again"
        )
