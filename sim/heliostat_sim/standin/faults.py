"""Faults that a test can switch on, to see how a caller takes them."""

from enum import StrEnum

import msgspec


class FaultKind(StrEnum):
    """What the stand-in does wrong with completions; its other paths stay well."""

    NONE = "none"
    REFUSE = "refuse"
    RESET_BEFORE_HEADERS = "reset-before-headers"
    ERROR_500 = "error-500"
    STALL = "stall"
    EMPTY_STREAM = "empty-stream"
    CUT_STREAM = "cut-stream"


class Fault(msgspec.Struct, frozen=True):
    """A fault, how many requests it strikes and how long it lasts; None means until changed."""

    kind: FaultKind = FaultKind.NONE
    requests: int | None = None
    seconds: float | None = None
