"""What the doctor asks of Prefect: which server flows will use, whether it answers, and with which version."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from prefect.settings import get_current_settings

from diffretouch.doctor.finding import Finding

ANSWER_S = 3


def check_prefect(root: Path) -> list[Finding]:
    """Findings about the server that PREFECT_API_URL (or the Prefect profile in use) names, or the embedded one, and
    about what of the prefect.yaml of `root` is deployed there.
    """
    settings = get_current_settings()
    url = (settings.api.url or "").rstrip("/")
    database = settings.server.database.connection_url
    kept = "none yet" if database is None else database.get_secret_value().partition("+")[0]
    if not url:
        words = f"no server is named: each flow starts its own for as long as it runs (database: {kept})"
        server = (
            "prefect server start, and PREFECT_API_URL, for what prefect.yaml deploys: schedules, workers, approval"
        )
        return [Finding("note", "Prefect", words, server)]
    mend = "prefect server start (in another terminal), or unset PREFECT_API_URL for the embedded server"
    word = settings.api.auth_string.get_secret_value() if settings.api.auth_string else ""
    try:
        theirs = _ask(f"{url}/admin/version", word)
        own = version("prefect")
        deployed = _deployed(root, url, word) if theirs == own else []
    except (urllib.error.URLError, OSError, ValueError) as error:
        return [Finding("fault", "Prefect", f"{url} does not answer as a Prefect server: {error}", mend)]
    if theirs != own:
        words = f"the server at {url} is Prefect {theirs}, flows here are {own}"
        return [Finding("fault", "Prefect", words, f"python -m pip install prefect=={own} (where the server runs)")]
    return [Finding("good", "Prefect", f"the server at {url} answers, version {theirs}"), *deployed]


def _deployed(root: Path, url: str, word: str) -> list[Finding]:
    """Whether the server has every deployment of prefect.yaml."""
    if not (root / "prefect.yaml").exists():
        return []
    wanted = yaml.safe_load((root / "prefect.yaml").read_text())["deployments"]
    there = {entry["name"] for entry in _ask(f"{url}/deployments/filter", word, {"limit": 200})}
    missing = [entry["name"] for entry in wanted if entry["name"] not in there]
    if missing:
        words = f"the server has no deployment named {', '.join(missing)}"
        return [Finding("note", "deployments", words, "prefect --no-prompt deploy --all")]
    return [Finding("good", "deployments", f"the server has all {len(wanted)} of prefect.yaml")]


def _ask(address: str, word: str, question: dict[str, Any] | None = None) -> Any:
    """What the server's API answers."""
    headers = {"Content-Type": "application/json"}
    if word:
        headers["Authorization"] = f"Basic {base64.b64encode(word.encode()).decode()}"
    data = None if question is None else json.dumps(question).encode()
    # the address is what a person set PREFECT_API_URL to
    with urllib.request.urlopen(urllib.request.Request(address, data, headers), timeout=ANSWER_S) as answer:
        return json.loads(answer.read())
