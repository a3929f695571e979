"""The values of scenario files, with their units: `600s`, `40%`, `10/s`."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from heliostat_crds.duration import parse_duration
from heliostat_crds.fields import misfit

_NUMBER = r"([0-9]{1,12}(?:\.[0-9]{1,9})?)"
_PERCENT = re.compile(rf"{_NUMBER}%", re.ASCII)
_RATE = re.compile(rf"{_NUMBER}/([smh])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def _seconds(value: Any) -> float:
    if not isinstance(value, str):
        raise misfit('must be a duration with a unit (ms, s, m, h), such as "600s"')
    return parse_duration(value)


def _ratio(value: Any) -> float:
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise misfit('must be a percentage, such as "40%"')
    return float(match[1]) / 100


def _per_second(value: Any) -> float:
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise misfit('must be a rate, such as "2.5/s", "30/m" or "900/h"')
    return float(match[1]) / _SECONDS[match[2]]


Seconds = Annotated[float, BeforeValidator(_seconds)]
"""A duration; an instant where it is one from the start."""
SomeSeconds = Annotated[Seconds, Field(gt=0)]
"""A duration above 0."""
Ratio = Annotated[float, BeforeValidator(_ratio)]
"""A percentage, as the ratio it is."""
Share = Annotated[Ratio, Field(le=1)]
"""A percentage of at most 100."""
SomeRatio = Annotated[Ratio, Field(gt=0)]
"""A percentage above 0."""
PerSecond = Annotated[float, BeforeValidator(_per_second)]
"""A rate."""
Count = Annotated[int, Field(ge=0, le=1_000_000)]
"""A whole number."""
Some = Annotated[int, Field(ge=1, le=100_000_000)]
"""A whole number of at least 1; tokens and how many of what."""
