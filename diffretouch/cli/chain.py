"""The commands of the chain: a stage each, in the order of the list, then what reads all of them."""

from __future__ import annotations

import atexit
import importlib
import os
import signal
import sys
import threading
from typing import Annotated, NamedTuple, NoReturn

import typer

from diffretouch.cli.app import app


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
        "Train the model, then measure and set what each slider moves (train.slider_photos). Stopped, the same command "
        "goes on from its last saved state.",
        "work/decode/DATASET, work/attributes/DATASET",
        "work/train/DATASET: model/ (a diffusers pipeline folder), history.jsonl, validation/ (pictures); curves "
        "in reports/DATASET/training",
        "sample",
    ),
    "sample": Words(
        "Retouch the test photos: with each expert's c, with c = 0, with random c, and along each slider.",
        "work/decode/DATASET, work/attributes/DATASET, work/train/DATASET",
        "work/sample/DATASET: PNG pictures and samples.parquet. Stopped, the same command goes on.",
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


ASK_AGAIN_S = 5.0
"""After a SIGTERM that did not end the process."""

Dataset = Annotated[str, typer.Argument(help="One of params.yaml's: fivek or ppr10k.")]


def _stage_command(stage: str, words: Words) -> None:
    def command(dataset: Dataset) -> None:
        _run(stage, dataset)

    def sample(
        dataset: Dataset,
        part: Annotated[
            str | None,
            typer.Option(
                metavar="K/N",
                help="Make only the K-th of N parts of the photos, here or on a machine that shares this folder, and "
                "keep its pictures for the run without --part, which makes what is missing.",
            ),
        ] = None,
    ) -> None:
        from diffretouch.sampling.made import Part

        _run(stage, dataset, *([Part.read(part)] if part else []))

    then = words.then if words.then == "report" else f"{words.then} DATASET"
    parts = (
        words.what,
        f"Reads: {words.reads}; params.yaml: {stage}, corpora.DATASET",
        f"Writes: {words.writes}",
        f"Next: `diffretouch {then}`, or `dvc repro` for all that is out of date",
    )
    app.command(stage, help="\n\n".join(parts))(sample if stage == "sample" else command)


def _run(stage: str, dataset: str, *words: object) -> None:
    if stage == "train":  # from here to the loop, and behind it; the loop saves its state first
        signal.signal(signal.SIGTERM, _leave)
    from diffretouch.config import load

    params = load()
    params.corpus(dataset)
    importlib.import_module(f"diffretouch.stages.{stage}").run(params, dataset, *words)
    if stage == "train":  # its states are gone: were it to fail now, all of it would be done again
        signal.signal(signal.SIGTERM, lambda *_: None)
        atexit.register(signal.signal, signal.SIGTERM, signal.SIG_IGN)  # Python gives up its handlers behind this


def _leave(number: int, _frame: object) -> NoReturn:
    print("stopped: run the same command to go on", file=sys.stderr)
    # a library that catches everything may swallow what is raised here: asked again, of whichever handler stands then
    again = threading.Timer(ASK_AGAIN_S, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()
    raise SystemExit(128 + number)


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
def compare(dataset: Dataset) -> None:
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
def summary() -> None:
    """Print the tables of the last evaluation and the path of the report.

    Reads: reports/DATASET/metrics.csv

    Writes: nothing
    """
    from diffretouch.config import load
    from diffretouch.report.summary import print_summary

    print_summary(load())
