"""Files that DVC keeps, as a commit has them: from the cache, else from the remote; no working tree is touched."""

from __future__ import annotations

from pathlib import Path

from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc_data.index import DataIndexDirError

from diffretouch.errors import UserError


class Gone(UserError):
    """Bytes that neither the cache nor a remote holds."""


def read_text(root: Path, commit: str, path: str) -> str | None:
    """A file's text, None where that commit has none; Gone where its bytes are not to be had."""
    try:
        return str(DVCFileSystem(str(root), rev=commit).read_text(path))
    except FileNotFoundError:
        return None
    except (DvcException, DataIndexDirError, OSError) as error:
        raise _gone(path, commit, error) from error


def copy_folder(root: Path, commit: str, path: str, out: Path) -> None:
    """Bring a folder to `out`, which may not be there yet; Gone where a byte of it is not to be had."""
    try:
        DVCFileSystem(str(root), rev=commit).get(path, str(out), recursive=True)
    except (DvcException, DataIndexDirError, OSError) as error:
        raise _gone(path, commit, error) from error


def _gone(path: str, commit: str, error: Exception) -> Gone:
    return Gone(
        f"{path} of commit {commit[:10]} cannot be read: neither DVC's cache here nor a remote has it; "
        f"`dvc remote list` and `dvc fetch --all-commits` say more ({error})"
    )
