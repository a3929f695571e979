"""The scenario of 50 regions with 200 engines each: too large for every evaluation.

It is run by hand with the command below; what came of it lies in a file beside the document.
"""

import json
from pathlib import Path

from heliostat_sim.evaluation import Table
from heliostat_sim.findings.section import Draft, Section

FILE_NAME = "scale.json"
COMMAND = ".venv/bin/heliostat sim run scale --json scale-report.json"


def scale(folder: Path) -> Section:
    """The command, and the last result: names and values in the order of the file."""
    draft = Draft("Scale")
    draft.say(
        f"""50 regions of 200 engines each, 10,000 requests a second. It is not part of
        `make evaluation`; run it with `{COMMAND}`."""
    )
    path = folder / FILE_NAME
    if not path.exists():
        draft.say("No result is recorded.")
        return draft.done()
    values = json.loads(path.read_text(encoding="utf-8"))
    rows = tuple((name.replace("_", " "), _shown(value)) for name, value in values.items())
    draft.table(Table(("", "last measured"), rows))
    return draft.done()


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
