"""What one step of an arm runs in, a process of its own: `python -m diffretouch.comparing.child PARENT WORDS...`.

`train`, `sample` and `evaluate` are the command line's own; `prepare` makes what training starts from, with the same
modules loaded as `train` has, so that `train` takes it as its own; the others are this room's.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from diffretouch.worker import die_with

if TYPE_CHECKING:
    from diffretouch.config import Params

OWN = {
    "peer-train": "diffretouch.comparing.peer_train:run",
    "peer-sample": "diffretouch.comparing.peer_sample:run",
    "probe": "diffretouch.comparing.probe:run",
}
"""Word -> module:function(params, dataset, more words...) of steps that the command line does not offer."""


def main(parent: int, words: list[str]) -> None:
    """Run `words`; dies with its parent."""
    die_with(parent)
    sys.argv = ["diffretouch", *words]
    cli = importlib.import_module("diffretouch.cli")
    if words[0] != "prepare" and words[0] not in OWN:
        cli.main()
        return
    from diffretouch.config import load
    from diffretouch.errors import UserError

    try:
        if words[0] == "prepare":
            _prepare(load(), words[1])
        else:
            module, function = OWN[words[0]].split(":")
            getattr(importlib.import_module(module), function)(load(), *words[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _prepare(params: Params, dataset: str) -> None:
    importlib.import_module("diffretouch.stages.train")
    import torch

    from diffretouch.devices import pick_device
    from diffretouch.files.workspace import training_dir
    from diffretouch.training.prepare import prepare

    torch.set_num_threads(params.runtime.threads)
    prepare(params, dataset, training_dir(dataset) / "views", pick_device(params.runtime.device))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
