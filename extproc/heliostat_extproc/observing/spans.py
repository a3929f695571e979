"""Each decision about a recorded request as a span of OpenTelemetry, its candidates as events.

A decision lasts from the question to the last word on it: a request that is held has a long one.
"""

import secrets
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from opentelemetry.proto.trace.v1 import trace_pb2

from heliostat_extproc.observing.request_record import RequestRecord, Step
from heliostat_extproc.observing.trace_context import TraceContext
from heliostat_routing.commands import Dispatch, Enqueue, Evict, Forward, Reject
from heliostat_routing.events import DispatchFailed, ForwardRefused
from heliostat_routing.explanation import Candidate, Explanation

SPAN_NAME = "heliostat decision"

_trace: ModuleType = trace_pb2
_SERVER = _trace.Span.SPAN_KIND_SERVER
_ERROR = _trace.Status.STATUS_CODE_ERROR
_TERMS = tuple(name for name in Candidate.__dataclass_fields__ if name != "endpoint")

_LastWord = Dispatch | Forward | Reject | Evict


def decision_spans(
    record: RequestRecord, new_id: Callable[[], bytes] = lambda: secrets.token_bytes(8)
) -> Iterator[Any]:
    """Give a span for each decision about a request; none where nobody records its trace."""
    if record.trace is None:
        return
    began_at: float | None = record.arrived_at
    held: Enqueue | None = None
    for at, step in record.steps:
        if isinstance(step, DispatchFailed | ForwardRefused):
            began_at, held = at, None
        elif isinstance(step, Enqueue):
            held = step
        elif isinstance(step, _LastWord) and began_at is not None:
            span = _span(record, record.trace, began_at, at, new_id())
            _describe(span, step, held)
            yield span
            began_at = None


def count_decisions(record: RequestRecord) -> int:
    """Count the spans that there are of a request, without making them."""
    return sum(isinstance(step, _LastWord) for _, step in record.steps)


def _span(
    record: RequestRecord, trace: TraceContext, began_at: float, ended_at: float, span_id: bytes
) -> Any:
    span = _trace.Span(
        name=SPAN_NAME,
        kind=_SERVER,
        trace_id=trace.trace_id,
        parent_span_id=trace.span_id,
        span_id=span_id,
        start_time_unix_nano=_nanoseconds(record, began_at),
        end_time_unix_nano=_nanoseconds(record, ended_at),
    )
    put_attributes(
        span,
        {
            "heliostat.request_id": record.request_id,
            "heliostat.tenant": record.tenant or None,
            "heliostat.pool": record.pool,
            "gen_ai.request.model": record.model,
            "heliostat.prompt_bytes": record.prompt_bytes,
            "heliostat.origin": record.origin,
        },
    )
    return span


def _describe(span: Any, word: Step, held: Enqueue | None) -> None:
    if isinstance(word, Dispatch):
        put_attributes(span, {"heliostat.decision": "dispatch"})
        endpoints = span.attributes.add(key="heliostat.endpoints").value.array_value.values
        for endpoint in word.endpoints:
            endpoints.add(string_value=endpoint)
        _explain(span, word.explanation)
    elif isinstance(word, Forward):
        put_attributes(span, {"heliostat.decision": "forward", "heliostat.region": word.region})
        _explain(span, word.explanation)
    elif isinstance(word, Reject | Evict):
        kind = "reject" if isinstance(word, Reject) else "evict"
        put_attributes(span, {"heliostat.decision": kind, "heliostat.reason": word.reason.value})
        span.status.code = _ERROR
        span.status.message = word.reason.value
    put_attributes(span, {"heliostat.held": held is not None})
    if held is not None and isinstance(word, Evict):
        _explain(span, held.explanation)


def _explain(span: Any, why: Explanation) -> None:
    put_attributes(
        span,
        {
            "heliostat.policy": str(why.policy),
            "heliostat.rule": why.rule,
            "heliostat.winner": why.winner,
            "heliostat.eligible": why.eligible,
        },
    )
    for candidate in why.candidates:
        event = span.events.add(name="candidate", time_unix_nano=span.end_time_unix_nano)
        terms = {f"heliostat.{term}": getattr(candidate, term) for term in _TERMS}
        verdict = why.verdict(candidate).value
        put_attributes(
            event,
            {"heliostat.endpoint": candidate.endpoint, "heliostat.verdict": verdict, **terms},
        )


def put_attributes(owner: Any, values: dict[str, str | bool | int | float | None]) -> None:
    """Give a span, an event or a resource attributes; None is left out."""
    for key, value in values.items():
        if value is None:
            continue
        attribute = owner.attributes.add(key=key).value
        if isinstance(value, bool):
            attribute.bool_value = value
        elif isinstance(value, int):
            attribute.int_value = value
        elif isinstance(value, float):
            attribute.double_value = value
        else:
            attribute.string_value = value


def _nanoseconds(record: RequestRecord, at: float) -> int:
    return int((record.unix_seconds + at - record.arrived_at) * 1e9)
