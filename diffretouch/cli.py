"""The command line: `diffretouch --help`. Heavy imports wait until a command needs them."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer
from typer.core import TyperGroup

from diffretouch.errors import ConfigError, UserError

# Threads of torch that wait for one another sleep: spinning ones slow a step 2 to 5 times once anything else runs.
# OpenMP reads this once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class Commands(TyperGroup):
    """Commands that say what to do after Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("interrupted: run the same command again", file=sys.stderr)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Learn how experts retouch photos: from RAW files to one report, in stages.\n\n"
    "`make repro` does everything on a fresh clone; `dvc repro` runs the stages that are out of date. Each stage is a "
    "command here too, in the order of the list: all read params.yaml and run from the root of the repository.\n\n"
    "Exit codes: 0 done, 1 failed, 2 a mistake in params.yaml or on the command line.",
)


class Words(NamedTuple):
    """What the help of a stage says."""

    what: str
    reads: str
    writes: str
    then: str


STAGES = {
    "decode": Words(
        "Develop every RAW and convert every expert's picture, to 16-bit sRGB of one size.",
        "data/DATASET",
        "work/decode/DATASET: the pictures, and manifest.parquet with a row for every photo. What cannot be read is a "
        "row with a reason; more of them than decode.max_quarantined_share fail the stage. Run again, it redoes the "
        "photos whose files or settings changed.",
        "attributes",
    ),
    "attributes": Words(
        "Measure colorfulness, brightness, contrast and temperature of every expert's result, and make c from them.",
        "work/decode/DATASET",
        "work/attributes/DATASET: attributes.parquet, scales.json, attributes.png",
        "train",
    ),
    "train": Words(
        "Train the model. Stopped, the same command goes on from its last saved state.",
        "work/decode/DATASET, work/attributes/DATASET",
        "work/train/DATASET: model/ (a diffusers pipeline folder), history.jsonl, validation/ (pictures); curves "
        "in reports/DATASET/training",
        "sample",
    ),
    "sample": Words(
        "Retouch the test photos: with each expert's c, with c = 0, with random c, and along each slider.",
        "work/decode/DATASET, work/attributes/DATASET, work/train/DATASET",
        "work/sample/DATASET: PNG pictures and samples.parquet",
        "evaluate",
    ),
    "evaluate": Words(
        "Measure the samples against the experts: fidelity with intervals over scenes, control of the sliders.",
        "work/decode/DATASET, work/attributes/DATASET, work/sample/DATASET",
        "work/evaluate/DATASET, and for people reports/DATASET/metrics.json, metrics.csv, psnr.png, control.png",
        "embed",
    ),
    "embed": Words(
        "Describe the style of inputs, experts' results and random results, and place them by t-SNE.",
        "work/decode/DATASET, work/sample/DATASET",
        "work/embed/DATASET, and for people reports/DATASET/tsne.csv, tsne.png",
        "study",
    ),
    "study": Words(
        "Make blinded pairs for people to judge in a browser.",
        "work/decode/DATASET, work/sample/DATASET",
        "work/study/DATASET/export: the page, its pictures and trials.csv, to hand out; key.csv beside it, to keep",
        "report",
    ),
}


def _stage_command(stage: str, words: Words) -> None:
    def command(dataset: Annotated[str, typer.Argument(help="One of params.yaml's: fivek or ppr10k.")]) -> None:
        from diffretouch.config import load

        params = load()
        params.corpus(dataset)
        importlib.import_module(f"diffretouch.stages.{stage}").run(params, dataset)

    then = words.then if words.then == "report" else f"{words.then} DATASET"
    parts = (
        words.what,
        f"Reads: {words.reads}; params.yaml: {stage}, corpora.DATASET",
        f"Writes: {words.writes}",
        f"Next: `diffretouch {then}`, or `dvc repro` for all that is out of date",
    )
    app.command(stage, help="\n\n".join(parts))(command)


for _stage, _words in STAGES.items():
    _stage_command(_stage, _words)


@app.command()
def report() -> None:
    """Put everything measured on one offline page over all datasets.

    Reads: work/ (all stages but study); params.yaml: report, datasets

    Writes: reports/index.html

    Next: open it in a browser; `diffretouch summary` prints its tables
    """
    from diffretouch.config import load
    from diffretouch.stages.report import run

    run(load())


@app.command()
def compare(dataset: Annotated[str, typer.Argument(help="One of params.yaml's: fivek or ppr10k.")]) -> None:
    """Train and measure every arm of params.yaml's `compare`: ablations of the model and deterministic peers.

    Hours on a CPU. Stopped, the same command goes on; an arm that is done is run again only when something it depends
    on changed. `dvc repro` and `make repro` leave this stage out.

    Reads: work/decode/DATASET, work/attributes/DATASET; params.yaml: compare, train, sample, evaluate, corpora.DATASET

    Writes: work/compare/DATASET, and for people reports/DATASET/compare.html, compare.csv, compare.png

    Next: open the page; `dvc repro compare/dvc.yaml:compare@DATASET` does the same and keeps what it made
    """
    from diffretouch.config import load

    params = load()
    params.corpus(dataset)
    importlib.import_module("diffretouch.stages.compare").run(params, dataset)


@app.command()
def gate(
    dataset: Annotated[str, typer.Argument(help="One of params.yaml's: fivek or ppr10k.")],
    challenger: Annotated[
        Path, typer.Option(help="Root of the tree of the new model: work/ and reports/ lie in it.", exists=True)
    ],
    out: Annotated[Path, typer.Option(help="Folder to write verdict.json and verdict.html into.")],
    champion: Annotated[
        Path | None,
        typer.Option(help="Root of the tree of the model in use; without it floors alone decide.", exists=True),
    ] = None,
) -> None:
    """Say whether a new model may take the place of the one in use, by params.yaml's `gate`, and why.

    Both sides must have been sampled and evaluated on the same test photos by the same code. Nothing is changed in
    either tree. The decision is promote; keep (a rule is broken); equal (no rule about loss is broken, but there is no
    gain); or refuse (not comparable, not finite, or a licence forbids it).

    Exit codes: 0 promote, 1 not promoted (or failed), 2 a mistake in params.yaml or on the command line.

    Reads: of either tree work/{decode,attributes,train,sample,evaluate}/DATASET, and dvc.lock and reports/DATASET/votes
    where they are; params.yaml: gate, evaluate, report, runtime

    Writes: OUT/verdict.json, OUT/verdict.html

    Next: open the page
    """
    from diffretouch.config import load

    params = load()
    params.corpus(dataset)
    from diffretouch.gating import judge

    verdict = judge(params, dataset, challenger, champion, out)
    for reason in verdict.broken:
        print(f"  {reason.rule}: {reason.found}; asked: {reason.asked}")
    print(f"{verdict.decision}: {verdict.summary}")
    print(out / "verdict.html")
    if not verdict.promoted:
        raise typer.Exit(1)


@app.command()
def summary() -> None:
    """Print the tables of the last evaluation and the path of the report.

    Reads: reports/DATASET/metrics.csv

    Writes: nothing
    """
    from diffretouch.config import load
    from diffretouch.report.summary import print_summary

    print_summary(load())


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

    Next: `dvc add data`, then `dvc repro`
    """
    from diffretouch.corpus import ingest as bring

    bring.ingest(dataset, source, root, agree=lambda question: yes or _agreed(question), dry_run=dry_run)


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UserError(f"{question} Nobody is here to answer: add --yes to agree")
    return typer.confirm(question)


@app.command()
def profile(name: Annotated[str, typer.Argument(help="cpu, fivek or ppr10k: a file of profiles/.")]) -> None:
    """Make profiles/NAME.yaml the params.yaml in use; the one before is kept as params.yaml.before.

    Reads: profiles/NAME.yaml

    Writes: params.yaml

    Next: `dvc repro` runs what changed
    """
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


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="The released adobe.ckpt or ppr.ckpt, or one like them.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; it may not be there yet, or be empty.")],
    variance: Annotated[
        Literal["fixed_small", "fixed_large"],
        typer.Option(help="Posterior variance of the sampler: fixed_small for FiveK, fixed_large for PPR10K."),
    ] = "fixed_small",
    network_size: Annotated[
        int, typer.Option(help="Side in pixels of the square the network sees; its latents are an eighth of it.")
    ] = 512,
    head_channels: Annotated[
        int, typer.Option(help="Channels of an attention head, which no tensor's shape tells.")
    ] = 64,
    last_relu: Annotated[
        bool,
        typer.Option(
            "--last-relu", help="Put a ReLU before the grid head's last convolution; the published facts name none."
        ),
    ] = False,
    unused: Annotated[
        list[str] | None,
        typer.Option(
            help="A tensor that is no part of the network, or a pattern such as 'extra.*'; may be repeated. "
            "What is neither known nor named is refused."
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(help="Written into the model card; the released weights' own, non-commercial, unless named."),
    ] = None,
) -> None:
    """Make a model folder of a released checkpoint (ldm layout, a Lightning pickle) that computes what it computed.

    Nothing in CHECKPOINT is executed. Every tensor is placed, or named as not used; anything unknown, missing or of
    another shape is refused by name. How large the network is, is read from the tensors. The sampler's defaults become
    those of the release: 20 steps, the last at timestep 200.

    Reads: CHECKPOINT

    Writes: OUT, whole or not at all: the pipeline as safetensors, README.md (model card), conversion.json (where every
    tensor went)

    Next: name OUT as train.start.source in params.yaml, or load it in Python; what is printed at the end says how
    """
    from diffretouch.model.convert import convert, print_conversion
    from diffretouch.model.ldm_plan import Options

    options = Options(variance, network_size, head_channels, last_relu, tuple(unused or ()), licence or Options.licence)
    print_conversion(convert(checkpoint, out, options))


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
