"""torchvision's compiled operators, declared where they cannot be loaded: the one place that does so.

On a CPU build of torch the torchvision wheel's own library does not load, and `import torchvision` (hence `lpips` and
diffusers) stops at `operator torchvision::nms does not exist`. A declaration is enough: nobody here calls them.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_libraries: list[torch.library.Library] = []


def declare_missing() -> None:
    """Declare `torchvision::nms` and `::qnms` unless torchvision's own library loads; call before importing it."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None or _libraries:
        return
    try:
        torch.ops.load_library(Path(found.origin).with_name("_C.so"))
    except OSError:
        # a declaration lives only as long as its Library object
        _libraries.append(torch.library.Library("torchvision", "DEF"))
        for name in ("nms", "qnms"):
            _libraries[0].define(name + _SIGNATURE)
