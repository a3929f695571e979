"""The W3C trace context: which trace a request belongs to, and whether anybody records it."""

import re
from dataclasses import dataclass

TRACEPARENT = "traceparent"

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A recorded trace, and the span in it under which more is to be told."""

    trace_id: bytes
    span_id: bytes


def parse_sampled(text: str) -> TraceContext | None:
    """Read a `traceparent`; None where it is none, or says that nobody records the trace."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest is not None):
        return None
    if not int(flags, 16) & _SAMPLED or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceContext(bytes.fromhex(trace_id), bytes.fromhex(span_id))
