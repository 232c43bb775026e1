"""No NaN: neither in what was measured of a challenger, nor in its weights."""

from __future__ import annotations

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from diffretouch.errors import UserError
from diffretouch.gating.sides import CONDITION, METRICS, SCORES, Side
from diffretouch.gating.verdict import Reason

SHOWN = 3


def judge_finite(side: Side) -> list[Reason]:
    """The rules `finite: measures` and `finite: weights`."""
    return [_measures(side), _weights(side)]


def _measures(side: Side) -> Reason:
    rows = side.rows
    along = rows["sweep"].str.startswith("axis_").to_numpy(bool)  # compared with no expert
    broken = ~np.isfinite(rows[[*SCORES]].to_numpy(float, na_value=np.nan)).all(axis=1)
    compared = ~np.isfinite(rows[[*METRICS]].to_numpy(float, na_value=np.nan)).all(axis=1)
    sampled = rows["sample"].notna().to_numpy(bool)
    asked_of = ~np.isfinite(rows[[*CONDITION]].to_numpy(float, na_value=np.nan)).all(axis=1)
    wrong = broken | (compared & ~along) | (asked_of & sampled)
    photos = sorted(rows["photo_id"][wrong].unique())
    told = f"{int(wrong.sum())} of {len(rows)} rows are not: {', '.join(map(str, photos[:SHOWN]))}"
    found = told if photos else f"all of {len(rows)} rows"
    return Reason("finite: measures", "every measured number finite", found, not photos)


def _weights(side: Side) -> Reason:
    asked = "every weight of the model finite"
    files = sorted(side.model.rglob("*.safetensors"))
    if not files:
        raise UserError(
            f"{side.model} holds no safetensors: run `dvc checkout train@{side.dataset}` in {side.root}, or, where it "
            f"was never trained, `dvc repro train@{side.dataset}`"
        )
    broken, count = [], 0
    for path in files:
        try:
            with safe_open(path, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118 - not a mapping
                    tensor = weights.get_tensor(name)
                    count += tensor.numel()
                    if not torch.isfinite(tensor).all():
                        broken.append(f"{path.parent.name}: {name}")
        except SafetensorError as error:
            mend = f"`dvc checkout --force train@{side.dataset}` in {side.root} restores it"
            raise UserError(f"{path} cannot be read: {error}; {mend}") from error
    more = f" and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
    found = f"not in {', '.join(broken[:SHOWN])}{more}" if broken else f"all of {count:,}"
    return Reason("finite: weights", asked, found, not broken)
