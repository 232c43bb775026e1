"""Which photos are test, val and train: rules on ids, which new photos cannot move."""

from __future__ import annotations

import hashlib
import re
from typing import Literal

from diffretouch.errors import PhotoError

SplitName = Literal["train", "val", "test"]


def split_of(photo_id: str, group: str, test_from: int, val_share: float) -> SplitName:
    """Test when the first number in the id is at least `test_from`; val by a hash of the group's name; else train.

    The number is a FiveK photo's (a4501 on) or a PPR10K group's (1356 on). Raises PhotoError for an id without one.
    """
    number = re.search(r"\d+", photo_id)
    if number is None:
        raise PhotoError(
            f"{photo_id!r} holds no number, so no split: ids look like a0001-name (fivek) or 12_3 (ppr10k)"
        )
    if int(number.group()) >= test_from:
        return "test"
    return "val" if hash_share(group) < val_share else "train"


def hash_share(text: str) -> float:
    """A number in [0,1) that depends on the text alone."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32
