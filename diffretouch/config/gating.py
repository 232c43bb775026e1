"""The section `gate`: what a new model must show before it is put in use. No DVC stage tracks it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from diffretouch.config.base import Positive, Section, Share

Loss = Annotated[float, Field(ge=0)]
Ceiling = Annotated[float, Field(gt=0)]


class Floors(Section):
    """What any model in use must reach on the test photos, whatever the one before it did; means over photos."""

    psnr: float
    """dB, of the row `expert`: told each expert's c, compared with that expert."""
    psnr_over_input: float
    """dB of `expert` above the untouched photo."""
    slope_mean: float
    """Slope of a slider, mean over the four (1: as far as the experts go, 0: dead)."""
    slope_each: float
    """Slope of the weakest slider."""
    spearman: float = Field(le=1)
    """Rank correlation of asked and measured, of the weakest slider."""
    texture: float = Field(le=1)
    """Correlation of log-luminance differences between neighbours, photo and result."""


class Losses(Section):
    """How far the paired interval, challenger minus champion, may reach below zero."""

    psnr: Loss
    """dB, of the row `expert`."""
    slope: Loss
    """Mean over the sliders; above 1 nothing is gained."""
    texture: Loss
    """Of that correlation; a model that hardly changes a photo keeps all of it, so a little is no fault."""


class Slices(Section):
    """Slices of the test photos: none may lose more PSNR (dB) than this, with an interval wholly below zero.

    The intervals of one kind hold together: the more slices, the wider each. null: that kind is not judged.
    """

    photos: Positive
    """Slices of fewer photos are shown and not judged."""
    expert: Loss | None
    """For each expert."""
    camera: Loss | None
    """For each camera."""
    category: Loss | None
    """For each word of the photos' categories."""
    group: Loss | None
    """For each scene (fivek) or group (ppr10k); its photos are resampled."""


class Clipping(Section):
    """Share of pixels with a channel at its end, 0 or 1, in the results told each expert's c; means over photos."""

    over_input: Share
    """Largest share beyond that of the untouched photos."""
    over_champion: Share
    """Largest share beyond that of the champion's results or the experts' own, whichever clip more."""


class Costs(Section):
    """Measured by the gate itself on the machine it runs on, on `runtime.device`; null: not measured, not judged."""

    photos: Positive
    """Test photos retouched for it, the first of them in the order of ids, after one to warm up."""
    seconds_a_photo: Ceiling | None
    """Median, of one photo of the corpus's own size at a time, with the section `sample`'s steps."""
    peak_gib: Ceiling | None
    """GiB of GPU memory, or of the process's memory where there is no GPU."""


class Votes(Section):
    """People's votes, where the challenger's tree holds them: reports/<dataset>/votes/*.csv, as the study page saves
    them, and work/study/<dataset>/key.csv.
    """

    against: Literal["input", "mean_expert", "expert"]
    """Whom ours is set against."""
    share: Share
    """Share of votes for ours that the low end of the interval must reach."""
    votes: Positive
    """With fewer votes there is no verdict of people, and nothing is judged."""


class Gate(Section):
    """The rules of `diffretouch gate`."""

    use: Literal["research", "commercial"]
    """What the model is meant for."""
    commercial: tuple[str, ...]
    """Licences that allow commercial use. A photo's licence is one of them when it is equal to it, or goes on behind it
    with a comma ("CC BY 4.0" allows "CC BY 4.0, A. Photographer"). Commercial use needs one for every photo the model
    learned from, the corpus, the model card, and the weights the training started from; what is unknown is not
    allowed."""
    floors: Floors
    cross_talk: Ceiling
    """Largest cross-talk beyond the experts' own correlation, mean over pairs of attributes."""
    losses: Losses
    gain: float = Field(ge=0)
    """dB of PSNR that the challenger must be above the champion, with an interval above zero; an equal one is not
    promoted."""
    slices: Slices
    clipping: Clipping
    costs: Costs
    votes: Votes
    photos: Positive
    """Photos that the page of the verdict shows: those in which the two differ most."""
