"""The rater's page and the tables beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files

import pandas as pd
from jinja2 import Environment, StrictUndefined

from diffretouch.study.pairs import Trial


def page(trials: Sequence[Trial], study: str) -> str:
    """A static page that works from a file: no network, answers are kept in the browser, so that a rater can close it
    and go on later, and saved as responses.csv. Every rater has a random name, by which answers saved twice are known.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("diffretouch.study") / "page.html").read_text(encoding="utf-8"))
    shown = [{"trial": t.number, "left": t.left_file, "right": t.right_file} for t in trials]
    # "<" escaped: nothing in the data can end the script element
    text = json.dumps(shown).replace("<", "\\u003c")
    return template.render(study=study, trials=text, key=hashlib.sha256(text.encode()).hexdigest()[:16])


def trial_table(trials: Sequence[Trial]) -> pd.DataFrame:
    """trials.csv, for the rater's eyes: what is shown, and nothing of what it is."""
    return pd.DataFrame([{"trial": t.number, "left": t.left_file, "right": t.right_file} for t in trials])


def key_table(trials: Sequence[Trial]) -> pd.DataFrame:
    """key.csv, kept apart: which picture is which."""
    return pd.DataFrame(
        {
            "trial": t.number,
            "photo_id": t.photo_id,
            "left_arm": t.left.name,
            "left_expert": t.left.expert,
            "right_arm": t.right.name,
            "right_expert": t.right.expert,
            "left": t.left_file,
            "right": t.right_file,
            "repeat_of": "" if t.repeat_of is None else t.repeat_of,
        }
        for t in trials
    )
