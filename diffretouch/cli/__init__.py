"""The command line: `diffretouch --help`. Heavy imports wait until a command needs them."""

from __future__ import annotations

import sys

from diffretouch.cli import chain, corpora, models
from diffretouch.cli.app import app
from diffretouch.errors import UserError

__all__ = ["app", "chain", "corpora", "main", "models"]


def main() -> None:
    """Entry point: a user's mistake is one message on stderr, not a traceback."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        # a full disk or a forbidden folder is the user's to mend: say which file
        where = f": {error.filename}" if error.filename else ""
        print(f"error: {error.strerror or error}{where}; run the same command again once mended", file=sys.stderr)
        sys.exit(1)
