"""What the project set out to reach, and whether the judged arm does: one line a target."""

from __future__ import annotations

from dataclasses import dataclass

from diffretouch.attributes import ATTRIBUTES
from diffretouch.comparing.numbers import BEST, Numbers
from diffretouch.config import Compare
from diffretouch.metrics import Interval
from diffretouch.report.numbers import signed

SLOPE_MEAN, SLOPE_EACH, CROSS_TALK, OVER_PEER_DB = 0.6, 0.3, 0.15, 1.0


@dataclass(frozen=True)
class Line:
    """One target."""

    target: str
    found: str
    met: bool


def verdict(numbers: Numbers, settings: Compare, control_loss: str) -> list[Line]:
    """Every target that these arms can say something about; means over seeds and photos decide, not intervals.

    `control_loss` is that of arms that name none: of the section train.
    """
    arm = settings.judged
    lines = [*_control(numbers, settings, control_loss), *_texture(numbers, settings)]
    over = numbers.get(arm, f"psnr_minus_{BEST}")
    if over is not None:
        found = f"{_span(over)} dB, by seed {_seeds(numbers, arm, f'psnr_minus_{BEST}')}"
        target = f"told c, at least {OVER_PEER_DB:g} dB nearer to the experts than the best pooled peer"
        lines.append(Line(target, found, over.mean >= OVER_PEER_DB))
    mean = numbers.get(arm, "psnr_minus_mean_expert")
    if mean is not None:
        found = f"{_span(mean)} dB, by seed {_seeds(numbers, arm, 'psnr_minus_mean_expert')}"
        lines.append(Line("told c, not further from the experts than their own average", found, mean.mean >= 0))
    best = numbers.parts(arm, f"psnr_best_of_minus_{BEST}", lambda part: part != "all")
    if best:
        found = ", ".join(f"{part.removeprefix('expert_').upper()} {_span(by)}" for part, by in best.items()) + " dB"
        target = f"best of {settings.best_of} random c nearer to each expert than the best pooled peer so adjusted"
        lines.append(Line(target, found, all(by.mean > 0 for by in best.values())))
    return lines


def _control(numbers: Numbers, settings: Compare, control_loss: str) -> list[Line]:
    arm, lines = settings.judged, []
    slopes = numbers.parts(arm, "slope", lambda part: part in ATTRIBUTES)
    mean = numbers.get(arm, "slope")
    if mean is not None:
        each = ", ".join(f"{name} {slope.mean:.2f}" for name, slope in slopes.items())
        met = mean.mean >= SLOPE_MEAN and all(slope.mean >= SLOPE_EACH for slope in slopes.values())
        target = f"sliders: slope {SLOPE_MEAN:g} at least on average, {SLOPE_EACH:g} for each"
        by_seed = numbers.seeds(arm, "slope")
        least = [min(own) for own in zip(*(numbers.seeds(arm, "slope", name) for name in slopes), strict=True)]
        alone = sum(a >= SLOPE_MEAN and b >= SLOPE_EACH for a, b in zip(by_seed, least, strict=True))
        seeds = ", ".join(f"{value:.2f}" for value in by_seed)
        found = (
            f"{mean.mean:.2f} [{mean.low:.2f}, {mean.high:.2f}]; {each}; by seed {seeds}: {alone} of them by themselves"
        )
        lines.append(Line(target, found, met))
        named = settings.other_control(control_loss)
        others = {n: other for n in named if (other := numbers.get(n, "slope")) is not None}
        if others:
            found = f"{mean.mean:.2f} against " + ", ".join(f"{n} {other.mean:.2f}" for n, other in others.items())
            best = max(other.mean for other in others.values())
            lines.append(Line("sliders: steeper than with other control losses", found, mean.mean > best))
    talk = numbers.get(arm, "excess_cross_talk")
    if talk is not None:
        # sliders that do nothing have none: read it beside the slopes
        pairs = numbers.parts(arm, "excess_cross_talk", lambda part: "->" in part)
        worst = max(pairs, key=lambda part: pairs[part].mean)
        target = f"cross-talk beyond the experts' own correlation under {CROSS_TALK:g}"
        found = f"{talk.mean:.3f} [{talk.low:.3f}, {talk.high:.3f}]"
        lines.append(Line(f"{target}, on average over pairs", found, talk.mean < CROSS_TALK))
        most = pairs[worst]
        found = f"{worst} {most.mean:.3f} [{most.low:.3f}, {most.high:.3f}]"
        lines.append(Line(f"{target}, the worst pair", found, most.mean < CROSS_TALK))
    return lines


def _texture(numbers: Numbers, settings: Compare) -> list[Line]:
    own, known = numbers.get(settings.judged, "texture"), list[tuple[str, float]]()
    for name in settings.arms:
        painted, alone = numbers.get(name, "texture"), numbers.get(name, "texture_autoencoder")
        if painted and alone:
            known += [(name, painted.mean), ("its autoencoder alone", alone.mean)]
    if own is None or not known:
        return []
    found = f"{own.mean:.3f} against " + ", ".join(f"{name} {other:.3f}" for name, other in known)
    target = "the photo's gradients survive: more of them than without a grid"
    return [Line(target, found, own.mean > max(other for _, other in known))]


def _span(found: Interval) -> str:
    return f"{signed(found.mean)} [{signed(found.low)}, {signed(found.high)}]"


def _seeds(numbers: Numbers, arm: str, metric: str) -> str:
    return ", ".join(signed(value) for value in numbers.seeds(arm, metric))
