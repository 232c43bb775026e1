"""What the doctor asks of Prefect: which server flows will use, whether it answers, and with which version."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from importlib.metadata import version

from prefect.settings import get_current_settings

from diffretouch.doctor.finding import Finding

ANSWER_S = 3


def check_prefect() -> list[Finding]:
    """Findings about the server that PREFECT_API_URL (or the Prefect profile in use) names, or the embedded one."""
    settings = get_current_settings()
    url = settings.api.url
    database = settings.server.database.connection_url
    kept = "none yet" if database is None else database.get_secret_value().partition("+")[0]
    if not url:
        words = f"no server is named: each flow starts its own for as long as it runs (database: {kept})"
        return [Finding("good", "Prefect", words)]
    mend = "prefect server start (in another terminal), or unset PREFECT_API_URL for the embedded server"
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/admin/version", timeout=ANSWER_S) as answer:
            theirs = json.loads(answer.read())
    except (urllib.error.URLError, OSError, ValueError) as error:
        return [Finding("fault", "Prefect", f"{url} does not answer as a Prefect server: {error}", mend)]
    own = version("prefect")
    if theirs != own:
        words = f"the server at {url} is Prefect {theirs}, flows here are {own}"
        return [Finding("fault", "Prefect", words, f"python -m pip install prefect=={own} (where the server runs)")]
    return [Finding("good", "Prefect", f"the server at {url} answers, version {theirs}")]
