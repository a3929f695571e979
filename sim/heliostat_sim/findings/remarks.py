"""Why a goal or a prediction is missed: remarks by key, in the file beside this module."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import yaml

_NO_REMARK = "not explained."


@cache
def remarks() -> Mapping[str, str]:
    """All remarks."""
    text = files("heliostat_sim.findings").joinpath("remarks.yaml").read_text(encoding="utf-8")
    found: Mapping[str, str] = yaml.safe_load(text) or {}
    return found


def remark(key: str, otherwise: str = _NO_REMARK) -> str:
    """The remark on this key, on one line."""
    return " ".join(remarks().get(key, otherwise).split())
