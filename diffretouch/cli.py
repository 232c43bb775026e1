"""The command line: `diffretouch --help`. Heavy imports wait until a command needs them."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from diffretouch.errors import ConfigError, UserError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Learn how experts retouch photos: RAW to report in stages. `dvc repro` runs them all; each is a command here.",
)

STAGES = {
    "decode": "RAW and experts' pictures -> work/decode/DATASET: 16-bit sRGB pictures and a manifest of every photo.",
    "attributes": "Pictures -> work/attributes/DATASET: scores and the condition c of every ground truth.",
    "train": "Pictures and c -> work/train/DATASET/model: a diffusers pipeline folder. Stopped, the same command goes on.",
    "sample": "Model and photos -> work/sample/DATASET: experts' c, c = 0, random c, and walks along each slider.",
    "evaluate": "Samples -> reports/DATASET/metrics.json and .csv: fidelity with intervals, control of the sliders.",
    "embed": "Samples -> reports/DATASET/tsne.png and .csv: style features and their t-SNE.",
    "study": "Samples -> work/study/DATASET/export: blinded pairs to judge in a browser; key.csv lies apart.",
}


def _stage_command(stage: str, what: str) -> None:
    def command(dataset: Annotated[str, typer.Argument(help="A dataset of params.yaml: fivek or ppr10k.")]) -> None:
        from diffretouch.config import load

        params = load()
        params.corpus(dataset)
        importlib.import_module(f"diffretouch.stages.{stage}").run(params, dataset)

    app.command(stage, help=what)(command)


for _stage, _what in STAGES.items():
    _stage_command(_stage, _what)


@app.command()
def report() -> None:
    """Everything measured -> reports/index.html: one offline page over all datasets."""
    from diffretouch.config import load
    from diffretouch.stages.report import run

    run(load())


@app.command()
def summary() -> None:
    """Print the tables of the last evaluation and the path of the report."""
    from diffretouch.config import load
    from diffretouch.report.summary import print_summary

    print_summary(load())


@app.command("demo-data")
def demo_data(
    root: Annotated[Path, typer.Option(help="Folder to write fivek/ and ppr10k/ into.")] = Path("data"),
) -> None:
    """Write both simulated corpora, small, in the real ones' layouts: DNGs, experts' pictures, masks."""
    from diffretouch.corpus.demo import write_demo

    taken = [path for name in ("fivek", "ppr10k") if (path := root / name).exists()]
    if taken:
        raise UserError(f"{' and '.join(map(str, taken))} exist: move them away, or name another --root")
    write_demo(root)


@app.command()
def profile(name: Annotated[str, typer.Argument(help="cpu, fivek or ppr10k: a file of profiles/.")]) -> None:
    """Make profiles/NAME.yaml the params.yaml in use; the one before is kept as params.yaml.before."""
    from diffretouch.config import PARAMS, load

    source = Path("profiles") / f"{name}.yaml"
    if not source.exists():
        known = ", ".join(sorted(path.stem for path in Path("profiles").glob("*.yaml")))
        raise ConfigError(f"no profile {name!r}: profiles/ has {known or 'none; run this from the repository root'}")
    load(source)
    if PARAMS.exists():
        shutil.copyfile(PARAMS, PARAMS.with_suffix(".yaml.before"))
    shutil.copyfile(source, PARAMS)
    print(f"params.yaml is now {source}; `dvc repro` runs what changed")


def main() -> None:
    """Entry point: a user's mistake is one message on stderr, not a traceback."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        # a full disk or a forbidden folder is the user's to mend: say which file
        print(f"error: {error.strerror or error}: {error.filename or 'unknown file'}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted: run the same command again", file=sys.stderr)
        sys.exit(130)
