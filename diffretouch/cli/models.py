"""The commands on models: judging a new one, converting a released one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from diffretouch.cli.app import app


@app.command()
def gate(
    dataset: Annotated[str, typer.Argument(help="One of params.yaml's: fivek or ppr10k.")],
    challenger: Annotated[
        Path, typer.Option(help="Root of the tree of the new model: work/ and reports/ lie in it.", exists=True)
    ],
    out: Annotated[Path, typer.Option(help="Folder to write verdict.json and verdict.html into.")],
    champion: Annotated[
        Path | None,
        typer.Option(
            help="Root of the tree of the model in use; without it the rules that need none decide.", exists=True
        ),
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
