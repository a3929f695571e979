"""A request in plain data: a line of the access log, and the whole story of its decisions."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from heliostat_extproc.observing.request_record import RequestRecord, Step
from heliostat_routing.commands import Dispatch, Enqueue, Evict, Forward, Reject
from heliostat_routing.events import (
    AttemptFailed,
    AttemptStarted,
    DispatchFailed,
    ForwardRefused,
)
from heliostat_routing.explanation import Explanation

LINE_FIELDS = {
    "time": "when it arrived, UTC",
    "request_id": "`x-request-id`",
    "tenant": "whose it is, where tenants alone are let in",
    "trace_id": "where a trace is recorded",
    "model": "as engines know it; empty where no pool serves what was asked for",
    "pool": "who serves the model",
    "endpoint": "who has answered, or was to: `IP:PORT`, or `region/NAME`",
    "origin": "the peer's router that has forwarded the request",
    "outcome": "as in the metric `heliostat_router_requests_total`",
    "status": "of the answer",
    "rule": "by which the last decision was made",
    "queue_seconds": "how long it was held here",
    "ttft_seconds": "to the first byte of a stream",
    "total_seconds": "to the end of the answer",
    "prompt_bytes": "of the prompt, as it is hashed",
    "prompt_tokens": "as the engine tells, like the next two",
    "cached_tokens": "found in the engine's prefix cache",
    "output_tokens": "generated",
    "retries": "attempts beyond the first",
    "returns": "times that it came back and was decided anew",
}
"""What a line of the access log holds, and nothing else; what is not known is null."""


def log_line(record: RequestRecord) -> dict[str, Any]:
    """Give what the access log tells of a request that has ended."""
    measured, timing = record.measured, record.timing
    why = last_explanation(record)
    values = (
        _time(record.unix_seconds),
        record.request_id,
        record.tenant or None,
        record.trace.trace_id.hex() if record.trace is not None else None,
        record.model,
        record.pool,
        record.endpoint,
        record.origin,
        record.ending,
        None if timing is None else timing.status,
        None if why is None else why.rule,
        _rounded(record.held_seconds),
        _rounded(record.ttft_seconds),
        _rounded(record.total_seconds),
        record.prompt_bytes,
        None if measured is None else measured.prompt_tokens,
        None if measured is None else measured.cached_tokens,
        None if measured is None else measured.output_tokens,
        record.retries,
        record.returns,
    )
    return dict(zip(LINE_FIELDS, values, strict=True))


def story(record: RequestRecord) -> dict[str, Any]:
    """Give all that is known of a request, each step with the seconds since it arrived."""
    steps = [
        {"at_seconds": _rounded(at - record.arrived_at), **_step(step)} for at, step in record.steps
    ]
    return {**log_line(record), "steps": steps}


def last_explanation(record: RequestRecord) -> Explanation | None:
    """Give the reasons of the last decision; None where there was none."""
    for _, step in reversed(record.steps):
        if isinstance(step, Dispatch | Enqueue | Forward):
            return step.explanation
    return None


def _step(step: Step) -> dict[str, Any]:
    match step:
        case Dispatch(_, endpoints, why):
            return {"step": "dispatched", "endpoints": list(endpoints), **_why(why)}
        case Forward(_, region, hold_seconds, why):
            told = {"region": region, "hold_seconds": _rounded(hold_seconds)}
            return {"step": "forwarded", **told, **_why(why)}
        case Enqueue(_, _, why):
            return {"step": "held", **_why(why)}
        case Reject(_, reason, _):
            return {"step": "rejected", "reason": reason.value}
        case Evict(_, reason, _):
            return {"step": "evicted", "reason": reason.value}
        case AttemptStarted(_, endpoint):
            return {"step": "attempt-started", "endpoint": endpoint}
        case AttemptFailed(_, endpoint):
            return {"step": "attempt-failed", "endpoint": endpoint}
        case DispatchFailed(_, endpoints):
            return {"step": "came-back", "endpoints": list(endpoints)}
        case ForwardRefused(_, region):
            return {"step": "came-back", "region": region}


def _why(why: Explanation) -> dict[str, Any]:
    candidates = [
        {key: _rounded(value) for key, value in asdict(candidate).items()}
        | {"verdict": why.verdict(candidate).value}
        for candidate in why.candidates
    ]
    return {
        "policy": why.policy,
        "rule": why.rule,
        "winner": why.winner,
        "eligible": why.eligible,
        "candidates": candidates,
    }


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def _time(unix_seconds: float) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="milliseconds")
