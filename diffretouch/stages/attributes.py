"""attributes: the scores and the condition c of every ground truth, and the scales they live on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from diffretouch.attributes import ATTRIBUTES, scores
from diffretouch.condition import conditions, photo_range
from diffretouch.config import Params
from diffretouch.errors import UserError
from diffretouch.files.atomic import write_json
from diffretouch.files.figures import FAINT, expert_colours, save, style
from diffretouch.files.pictures import read_srgb
from diffretouch.files.tables import FACTS, read_table, write_table
from diffretouch.files.workspace import new_dir, publish, stage_dir
from diffretouch.progress import track

PLOT = "attributes.png"
OF_PHOTO = ["split", *FACTS]
UNITS = ("colorfulness [0,1]", "brightness [0,1]", "contrast (mean squared difference)", "temperature (mired)")


def run(params: Params, dataset: str) -> None:
    """Score every expert's picture of `dataset`, make c from the scores, save both and draw their distribution."""
    torch.set_num_threads(params.runtime.threads)
    settings, experts = params.attributes, params.corpus(dataset).experts
    decoded = stage_dir("decode", dataset)
    manifest = read_table(decoded / "manifest.parquet", ["photo_id", "status", *OF_PHOTO])
    photos = manifest[manifest["status"] == "ok"]
    measured = {
        row["photo_id"]: score_pictures([decoded / row[f"expert_{x}"] for x in experts], settings.size)
        for _, row in track(photos.iterrows(), f"attributes {dataset}", len(photos))
    }
    facts = photos.set_index("photo_id")[OF_PHOTO].to_dict("index")
    training = [s for photo_id, s in measured.items() if facts[photo_id]["split"] == "train"]
    if not training:
        raise UserError(f"{dataset} has no usable train photos: see {decoded}/manifest.parquet")
    reference = torch.cat(training)
    rows = []
    for photo_id, s in measured.items():
        c = conditions(s, reference, settings)
        for k, expert in enumerate(experts):
            rows.append(
                {"photo_id": photo_id, "expert": expert, **facts[photo_id]}
                | {f"score_{a}": float(s[k, i]) for i, a in enumerate(ATTRIBUTES)}
                | {f"c_{a}": float(c[k, i]) for i, a in enumerate(ATTRIBUTES)}
            )
    frame = pd.DataFrame(rows)
    out = new_dir(stage_dir("attributes", dataset))
    write_table(out / "attributes.parquet", frame)
    half = torch.stack([photo_range(s)[1] for s in training]).mean(0)
    write_json(
        out / "scales.json",
        {
            "scheme": settings.scheme,
            "size": settings.size,
            "just_noticeable": settings.just_noticeable.model_dump(),
            "half_range": {a: round(float(h), 6) for a, h in zip(ATTRIBUTES, half, strict=True)},
        },
    )
    save(_figure(frame, title=f"{dataset}: attribute scores and condition c of the experts' results"), out / PLOT)
    publish(out / PLOT, dataset)


def score_pictures(paths: list[Path], size: int) -> Tensor:
    """The scores of one photo's pictures: (K,4) float64."""
    return torch.cat([scores(torch.from_numpy(read_srgb(p)).permute(2, 0, 1)[None], size) for p in paths]).double()


def _figure(frame: pd.DataFrame, *, title: str) -> Figure:
    """Two rows of histograms, one line an expert: the scores, and c."""
    colours = expert_colours(sorted(frame["expert"].unique()))
    with style():
        figure, axes = plt.subplots(2, 4, figsize=(11.6, 4.8))
        for i, attribute in enumerate(ATTRIBUTES):
            for axis, column, words in (
                (axes[0, i], f"score_{attribute}", UNITS[i]),
                (axes[1, i], f"c_{attribute}", "c"),
            ):
                span = frame[column].min(), frame[column].max()
                for expert, part in frame.groupby("expert"):
                    axis.hist(part[column], 12, span, histtype="step", lw=1.5, color=colours[expert], label=expert)
                axis.set_xlabel(words)
            axes[0, i].set_title(attribute)
        axes[0, 0].set_ylabel("ground truths")
        axes[1, 0].set_ylabel("ground truths")
        handles = [plt.Line2D([], [], color=colour, label=f"expert {x}") for x, colour in colours.items()]
        figure.legend(handles=handles, ncols=len(handles), loc="upper right")
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=FAINT)
        figure.tight_layout()
    return figure
