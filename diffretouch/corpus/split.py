"""Which photos are test, val and train: rules on ids, which new photos cannot move, or a list."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from diffretouch.config import Split
from diffretouch.errors import PhotoError, UserError

SplitName = Literal["train", "val", "test"]


def split_by(photo_id: str, group: str, rule: Split, listed: Mapping[str, SplitName] | None) -> SplitName | None:
    """The split that the list gives, None (left out) where it does not name the photo; by the rule without a list.

    Raises PhotoError as `split_of`.
    """
    if listed is not None:
        return listed.get(photo_id)
    return split_of(photo_id, group, rule.test_from, rule.val_share)


def split_of(photo_id: str, group: str, test_from: int, val_share: float) -> SplitName:
    """Test when the first number in the id is at least `test_from`; val by a hash of the group's name; else train.

    The number is a FiveK photo's (a4501 on) or a PPR10K group's (1356 on). Raises PhotoError for an id without one.
    """
    number = re.search(r"\d+", photo_id)
    if number is None:
        raise PhotoError(
            f"{photo_id!r} holds no number, so no split: ids look like a0001-name (fivek) or 12_3 (ppr10k)", "split"
        )
    if int(number.group()) >= test_from:
        return "test"
    return "val" if hash_share(group) < val_share else "train"


def hash_share(text: str) -> float:
    """A number in [0,1) that depends on the text alone."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def read_split_list(path: Path) -> dict[str, SplitName]:
    """Splits by photo_id, from a CSV with the columns photo_id and split; UserError, with the line, where it is wrong.

    Other columns are allowed, and blanks around cells.
    """
    if not path.is_file():
        raise UserError(f"{path} not found: it is what split.list in params.yaml names; null there means the rule")
    listed: dict[str, SplitName] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, restval="", strict=True, skipinitialspace=True)
            if not {"photo_id", "split"} <= set(rows.fieldnames or []):
                raise UserError(
                    f"{path}:1 must name the columns photo_id and split: it has {rows.fieldnames or 'none'}"
                )
            for row in rows:
                photo_id, split = row["photo_id"].strip(), row["split"].strip()
                if not photo_id:
                    raise UserError(f"{path}:{rows.line_num} names no photo (split {split!r})")
                if photo_id in listed:
                    raise UserError(f"{path}:{rows.line_num} names {photo_id} a second time: keep one line")
                listed[photo_id] = _split_name(split, f"{path}:{rows.line_num}, {photo_id}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no table in UTF-8 with commas: {error}") from error
    if not listed:
        raise UserError(f"{path} names no photo: a line looks like a0001-jmac_DSC1459,train")
    return listed


def _split_name(text: str, where: str) -> SplitName:
    for name in get_args(SplitName):
        if text == name:
            return name
    raise UserError(f"{where}: split is {text!r}, must be one of {', '.join(get_args(SplitName))}")


def list_warnings(listed: Mapping[str, SplitName], groups: Mapping[str, str]) -> list[str]:
    """What to tell a person about a list, given every photo's group by photo_id: a sentence each, none if all is well.

    Named photos that the corpus does not have; groups (scenes) with photos in more than one split.
    """
    unknown = sorted(listed.keys() - groups.keys())
    splits = defaultdict(set)
    for photo_id in listed.keys() & groups.keys():
        splits[groups[photo_id]].add(listed[photo_id])
    torn = sorted(group for group, names in splits.items() if len(names) > 1)
    warnings = []
    if unknown:
        warnings.append(f"the split list names photos that the corpus does not have: {_some(unknown)}")
    if torn:
        warnings.append(f"the split list puts photos of one scene into several splits: {_some(torn)}")
    return warnings


def _some(names: Sequence[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
