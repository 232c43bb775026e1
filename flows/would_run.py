"""Whether DVC would run a stage, or has its outputs; asked in a process of its own.

Why: DVC resolves the paths of what its run cache remembers against the current folder, which threads share.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from flows import family
from flows.dvc_process import DvcBusy, mend_rwlock

RUN, HAS, BUSY = 10, 11, 12
"""Exit codes: DVC would run the stage, has its outputs, or is at work elsewhere."""


def would_run(stage: str, root: Path) -> bool:
    """Whether `dvc repro` in `root` would run the stage: it is not up to date, and the run cache does not have it.

    Raises:
        DvcBusy: another DVC is at work.
    """
    roots = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | family.mark(root, stage) | {"PYTHONPATH": os.pathsep.join(filter(None, roots))}
    command = [sys.executable, "-P", "-m", "flows.would_run", stage]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == BUSY or mend_rwlock(done.stderr, root):
        raise DvcBusy(f"DVC is busy, {stage} waits:\n{done.stderr}")
    if done.returncode not in (RUN, HAS):
        raise RuntimeError(f"DVC could not say whether it would run {stage}:\n{done.stderr}")
    return done.returncode == RUN


def _ask(stage: str) -> int:
    from dvc.lock import LockError
    from dvc.repo import Repo
    from dvc.stage.cache import RunCacheNotFoundError
    from dvc_data.hashfile.hash_info import HashInfo

    try:
        with Repo() as repo, repo.lock:
            (found,) = repo.stage.collect(stage)
            if not found.changed():
                return HAS
            if found.changed_deps():
                # what dvc.lock says of its outputs is of other inputs: only the run cache can have them
                found.save_deps()
                for out in found.outs:
                    out.hash_info = HashInfo()
            repo.stage_cache.restore(found, dry=True)
    except RunCacheNotFoundError:
        return RUN
    except LockError as error:
        print(error, file=sys.stderr)
        return BUSY
    return HAS


if __name__ == "__main__":
    sys.exit(_ask(sys.argv[1]))
