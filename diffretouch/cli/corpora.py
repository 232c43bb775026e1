"""The commands before the chain: corpora into place, and a profile of parameters."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from diffretouch.cli.app import app
from diffretouch.errors import UserError


@app.command("demo-data")
def demo_data(
    root: Annotated[Path, typer.Option(help="Folder to write fivek/ and ppr10k/ into.")] = Path("data"),
) -> None:
    """Write both simulated corpora, small, in the real ones' layouts: DNGs, experts' pictures, masks.

    Always the same bytes. Demo corpora that are there are replaced; any other corpus is refused and left alone.

    Reads: photographs inside installed packages

    Writes: ROOT/fivek, ROOT/ppr10k

    Next: `make repro`, or `dvc repro`
    """
    from diffretouch.corpus.demo import write_demo
    from diffretouch.progress import track

    write_demo(root, progress=track)
    print(f"{root / 'fivek'} and {root / 'ppr10k'} are written; next: `make repro`")


@app.command()
def ingest(
    dataset: Annotated[str, typer.Argument(help="fivek or ppr10k.")],
    source: Annotated[Path, typer.Argument(help="Folder of the download, however nested.")],
    root: Annotated[Path, typer.Option(help="Folder that holds DATASET/.")] = Path("data"),
    yes: Annotated[
        bool, typer.Option("--yes", help="Agree to copies and to read-only files without a question.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Bring a download of the real FiveK or PPR10K into place, by hard links: no space is taken, SOURCE stays as it is.

    Run it again when SOURCE has grown, or with a second SOURCE: what is new is added, what is there stays. Before files
    are copied (another file system), or linked where DVC would make your own files read-only, you are asked.

    Reads: SOURCE; DVC's configuration

    Writes: ROOT/DATASET: the files, photos.csv (rows and columns of yours are kept), corpus.yaml

    Next: `dvc add data` (`dvc add --no-relink data` on ext4, or DVC puts copies in the links' places), then `dvc repro`
    """
    from diffretouch.corpus import ingest as bring

    bring.ingest(dataset, source, root, agree=lambda question: yes or _agreed(question), dry_run=dry_run)


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UserError(f"{question} Nobody is here to answer: add --yes to agree")
    return typer.confirm(question)


@app.command()
def profile(name: Annotated[str, typer.Argument(help="cpu, tiny, fivek or ppr10k: a file of profiles/.")]) -> None:
    """Make profiles/NAME.yaml the params.yaml in use; the one before is kept as params.yaml.before.

    Reads: profiles/NAME.yaml

    Writes: params.yaml

    Next: `dvc repro` runs what changed
    """
    from diffretouch.profiles import use

    if use(name):
        print(f"params.yaml is now profiles/{name}.yaml; `dvc repro` runs what changed")
    else:
        print(f"params.yaml is profiles/{name}.yaml already")
