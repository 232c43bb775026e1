"""What people said of the challenger's results in a blinded study, where they were asked.

Votes on another model's results, which may lie in the same folder, are known by their pictures' names and not counted.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from diffretouch.config import Params
from diffretouch.errors import UserError
from diffretouch.files.workspace import report_dir
from diffretouch.gating.sides import Side
from diffretouch.gating.verdict import Reason
from diffretouch.metrics import bootstrap

SHOWN = ["trial", "left", "right"]
"""What a trial is known by in votes and key: files of a pair have names of their own."""
WORDS = {"input": "the untouched photo", "mean_expert": "the experts' average", "expert": "the expert's own result"}


def judge_votes(side: Side, params: Params) -> Reason:
    """The rule `study`; repeated trials, which measure a rater's consistency, do not count."""
    asked = params.gate.votes
    words = f"people prefer ours to {WORDS[asked.against]} in at least {asked.share:.0%} of the votes, low end"
    folder = side.root / report_dir(side.dataset) / "votes"
    files = sorted(folder.glob("*.csv")) if folder.is_dir() else []
    if not files:
        return Reason("study", words, f"no votes in {report_dir(side.dataset) / 'votes'}", None)
    votes, others = _votes(files, _key(side))
    left_out = f"; {others} files are votes on other results" if others else ""
    ours = votes[["left_arm", "right_arm"]].eq("ours")
    other = votes[["left_arm", "right_arm"]].eq(asked.against)
    votes = votes[ours.any(axis=1) & other.any(axis=1) & (votes["repeat_of"] == "")]
    if len(votes) < asked.votes:
        few = f"{len(votes)} votes, fewer than {asked.votes}: no verdict of people{left_out}"
        return Reason("study", words, few, None)
    chosen = votes["left_arm"].where(votes["choice"] == "left", votes["right_arm"])
    settings = params.evaluate
    found = bootstrap(
        chosen.eq("ours").to_numpy(float),
        list(votes["group"]),
        resamples=settings.bootstrap,
        confidence=settings.confidence,
        seed=settings.seed,
    )
    span = f"{found.mean:.0%} [{found.low:.0%}, {found.high:.0%}]"
    told = f"{span} of {found.n} votes in {len(files) - others} files, on {found.groups} scenes{left_out}"
    return Reason("study", words, told, found.low >= asked.share)


def _key(side: Side) -> pd.DataFrame:
    path = side.work("study") / "key.csv"
    if not path.exists():
        raise UserError(f"{path} not found, and votes say nothing without it: run `dvc repro study@{side.dataset}`")
    return _read(path, [*SHOWN, "left_arm", "right_arm", "repeat_of", "group"])


def _votes(files: list[Path], key: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The votes with what they are on, and how many of the files are on other pictures throughout.

    What a rater saved twice, halfway and at the end, counts once, as it was answered last.
    """
    parts, others = [key.head(0).assign(choice="", rater="", answered="")], 0
    for path in files:
        own = _read(path, [*SHOWN, "choice"])
        if len(own) and not own[["left", "right"]].isin({*key["left"], *key["right"]}).any(axis=None):
            others += 1
            continue
        joined = own.merge(key, on=SHOWN, how="left", validate="many_to_one")
        strange = joined[joined["left_arm"].isna() | ~joined["choice"].isin(("left", "right"))]
        if len(strange):
            trial = strange.iloc[0]["trial"]
            raise UserError(f"{path}: trial {trial} is not of this study, or its choice is neither left nor right")
        parts.append(joined)
    votes = pd.concat(parts, ignore_index=True)
    order = pd.to_numeric(votes["answered"], errors="coerce").sort_values(kind="stable").index
    votes = votes.loc[order].fillna({"rater": ""})
    again = votes.duplicated(["rater", *SHOWN], keep="last") & (votes["rater"] != "")
    return votes[~again], others


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeError) as error:
        raise UserError(f"{path} is no CSV that the study page saves: {error}") from error
    missing = [name for name in columns if name not in table]
    if missing:
        raise UserError(f"{path} lacks the columns {missing}: it has {list(table.columns)}")
    return table
