"""Sections about photos and experts' pictures: `corpora`, `decode`, `attributes`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from diffretouch.config.base import Positive, Section, Share

RENDERING = ("demosaic", "highlights", "half_size", "baseline_exposure")
"""The keys of `decode` that say how a RAW is developed; its pictures' size and format, and the checks, are others."""
PROFILES: dict[str, tuple[str | bool, ...]] = {"linear-srgb-2": ("AHD", "Clip", True, True)}
"""What the names of this project's renderings stand for, in the order of RENDERING."""
RESERVED = "linear-srgb-"
"""How those names begin, the next version's and the earlier ones', which other code rendered, included."""


class Split(Section):
    """A committed rule on ids, which new photos cannot move, or a list."""

    test_from: Positive
    """A photo is test when the first number in its id (fivek: aNNNN; ppr10k: the group) is at least this."""
    val_share: Share
    """Of the other photos, the share of groups that become val, chosen by a hash of the group's name."""
    list: str | None
    """A CSV inside data/<dataset>/ with the columns photo_id and split, which then replaces the rule: photos that it
    does not name are left out; null for the rule."""


class Corpus(Section):
    """What differs between datasets."""

    experts: tuple[str, ...] = Field(min_length=2)
    """Letters of the experts; fivek reads `tiff16_<letter>/`, ppr10k `target_<letter>/`."""
    split: Split
    short_edge: Positive | None
    """Pictures are reduced so that their short edge has this many pixels; null keeps the decoded size."""
    untagged: Literal["srgb", "prophoto", "adobe_rgb", "display_p3"]
    """Colour space of a picture that carries no ICC profile; how many there were is printed."""
    sampler_variance: Literal["fixed_small", "fixed_large"]
    """Posterior variance of the ancestral sampler (released: fixed_small for FiveK, fixed_large for PPR10K)."""


class PictureFile(Section):
    """How decoded pictures are kept."""

    format: Literal["tif", "png"]
    """tif is deflated with a predictor."""
    bits: Literal[8, 16]
    """Bits a channel; masks always have 8."""


class Decode(Section):
    """RAW, or a rendered input, and the experts' pictures to sRGB of one size."""

    profile: str = Field(min_length=1)
    """Name and version of this rendering, carried into every report. linear-srgb-2 stands for AHD, Clip, half_size and
    baseline_exposure; other settings need a name of your own, such as mylab-1."""
    input: Literal["raw", "rendered"]
    """raw develops dng/ or raw/; rendered reads exports (a Lightroom's) from rendered/ (fivek) or source/ (ppr10k)."""
    demosaic: Literal["LINEAR", "VNG", "PPG", "AHD", "DCB", "DHT", "AAHD"]
    """LibRaw's demosaicking algorithm."""
    highlights: Literal["Clip", "Ignore"]
    """LibRaw's highlight mode; Ignore scales light down so that nothing clips. Blend is not offered: it shifts
    brightness."""
    half_size: bool
    """Develop at half size (one pixel from each 2x2 cell, no demosaicking) where the target is at most that large."""
    baseline_exposure: bool
    """Honour a DNG's BaselineExposure: light is multiplied by two to its power, and clipped at white."""
    picture: PictureFile
    registration: Annotated[float, Field(gt=0)] | None
    """Largest shift in pixels between a photo and its expert's picture, at decoded size; null leaves it unchecked."""
    cpu_seconds: Positive
    """CPU time a photo may take before it is given up: damaged files can keep LibRaw busy for ever."""
    max_quarantined_share: Share
    """The stage fails when more photos than this share cannot be used."""

    @model_validator(mode="after")
    def _as_named(self) -> Decode:
        if not self.profile.startswith(RESERVED):
            return self
        if self.profile not in PROFILES:
            raise ValueError(
                f"profile {self.profile} is none of {', '.join(PROFILES)}: names that begin with {RESERVED} stand for "
                "this project's own renderings; give yours another, such as mylab-1"
            )
        meant = dict(zip(RENDERING, PROFILES[self.profile], strict=True))
        differing = {key: value for key, value in self._rendering().items() if value != meant[key]}
        if differing:
            raise ValueError(
                f"profile {self.profile} stands for {_told(meant)}, but here it says {_told(differing)}: give another "
                "rendering a name of your own, such as profile: mylab-1"
            )
        return self

    def _rendering(self) -> dict[str, str | bool]:
        return {key: getattr(self, key) for key in RENDERING}

    @property
    def rendering(self) -> str:
        """The settings behind the profile's name, in words."""
        return _told(self._rendering())


def _told(settings: dict[str, str | bool]) -> str:
    """As in params.yaml."""
    return ", ".join(f"{key} {str(v).lower() if isinstance(v, bool) else v}" for key, v in settings.items())


class JustNoticeable(Section):
    """Half-ranges under which the experts count as agreeing (c = 0)."""

    colorfulness: float = Field(gt=0)
    """In units of the score."""
    brightness: float = Field(gt=0)
    """In units of the score."""
    contrast: float = Field(gt=0)
    """As a share of the middle of the experts' scores."""
    temperature: float = Field(gt=0)
    """In mired."""


class Attributes(Section):
    """Scores of every ground truth and the condition c made from them."""

    size: Positive
    """Side in pixels of the square every picture is resized to before it is scored; also where training compares."""
    scheme: Literal["expert_range", "ternary", "deviation", "quantile"]
    """How c follows from the scores of one photo's experts."""
    just_noticeable: JustNoticeable
