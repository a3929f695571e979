"""The page about statuses knows every reason, and no other."""

import re
from enum import StrEnum
from pathlib import Path

import pytest

from heliostat_crds.conditions import DegradedReason, ProgressingReason, ReadyReason

PAGE = Path(__file__).parents[2] / "docs" / "status.md"
SECTIONS: dict[str, type[StrEnum]] = {
    "Ready": ReadyReason,
    "Progressing": ProgressingReason,
    "Degraded": DegradedReason,
}


@pytest.mark.parametrize("condition", SECTIONS)
def test_every_reason_is_explained(condition: str) -> None:
    """Each condition's table has one row per reason of its enum, with the status it goes with."""
    section = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    (table,) = [it for it in section if it.startswith(f"{condition}\n")]
    rows = re.findall(r"^\| `(\w+)` \| (True|False) \| \S", table, re.MULTILINE)
    assert {name for name, _ in rows} == {reason.value for reason in SECTIONS[condition]}
