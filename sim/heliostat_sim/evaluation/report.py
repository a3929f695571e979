"""What one run of a world came to: plain numbers, in JSON with a fixed order of keys."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class RegionReport:
    """What the clients of one region saw."""

    requests: int
    """Sent after the warm-up and ended."""
    ttft_p50_seconds: float | None
    ttft_p90_seconds: float | None
    slo_ratio: float | None
    """Share of the requests whose first token came within the objective."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One scenario under one policy with one seed.

    *Sent after the warm-up* is the set behind latencies, hit ratio, endings and shares. *Finished
    after the warm-up* is the set behind all rates per second. A measure without samples is None.

    A request that was rejected, expired or broken counts with a time to first token of the deadline
    (or of the time it took, if longer) and with no tokens. One that is open at the end without a
    first token counts with its age, a lower bound, if that is above the objective; a younger one
    could still be in time, and is left out.
    """

    scenario: str
    policy: str
    seed: int
    duration_seconds: float
    warmup_seconds: float
    """What is cut off at the start."""
    span_seconds: float
    """What is left: the divisor of all rates."""
    slo_seconds: float
    """The objective for the time to first token."""
    deadline_seconds: float
    """What a failed request's time to first token counts as."""

    sent: int
    """Over the whole run, like the next three."""
    still_open: int
    lost: int
    """Sent, not ended and not open: 0, or the simulation is wrong."""
    hung: int
    """Open without a first token, and older than the deadline with a margin: over the whole run."""
    resent: int
    """How often clients sent requests again after broken streams."""
    served: int
    rejected: int
    expired: int
    broken: int
    failed_ratio: float | None
    """Share of the ended requests that were not served."""

    throughput_tokens_per_second: float
    """SkyLB's measure: prompt tokens, cached ones in full, and twice the output tokens."""
    output_tokens_per_second: float
    requests_per_second: float
    """Served ones."""
    good_requests_per_second: float
    """Served ones whose first token came within the objective."""

    ttft_mean_seconds: float | None
    ttft_p50_seconds: float | None
    ttft_p90_seconds: float | None
    ttft_p99_seconds: float | None
    ttft_curve_seconds: tuple[float, ...]
    """The quantiles 0, 0.01 ... 1; empty without samples."""
    e2e_p50_seconds: float | None
    """To the last token, of served requests."""
    e2e_p90_seconds: float | None
    e2e_p99_seconds: float | None
    time_per_output_token_p50_seconds: float | None
    """(end to end - first token) / (output tokens - 1), of served requests."""
    time_per_output_token_p90_seconds: float | None
    hit_ratio: float | None
    """Cached prompt tokens per prompt token of served requests."""
    slo_ratio: float | None
    """Share of the requests whose first token came within the objective."""
    cross_region_ratio: float | None
    """Share of the served requests whose engine is in another region than their client."""

    imbalance_mean_ratio: float | None
    """Greatest number of requests in an engine over the mean, averaged over samples."""
    imbalance_least_ratio: float | None
    """Greatest over the least, which counts as 1 if it is 0, averaged over samples.

    The measure of the SkyLB paper, whose treatment of idle engines is not published.
    """
    queued_mean_requests: float | None
    """Held by gateways."""
    queued_greatest_requests: int | None

    preemptions: int
    generated_tokens: int
    prefill_tokens: int
    messages: int
    """State messages between regions."""
    message_bytes: int
    gpu_hours: float

    regions: Mapping[str, RegionReport]
    """By the region of the client."""

    def to_json(self) -> dict[str, Any]:
        """The report as plain data, rounded to microseconds and millionths."""
        plain: dict[str, Any] = _rounded(asdict(self))
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "Report":
        """The report that `to_json` made this of."""
        regions = {name: RegionReport(**region) for name, region in plain["regions"].items()}
        curve = tuple(plain["ttft_curve_seconds"])
        return cls(**{**plain, "regions": regions, "ttft_curve_seconds": curve})

    def dumps(self) -> str:
        """The report as JSON text: the same bytes for the same run."""
        return json.dumps(self.to_json(), indent=2)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DECIMALS)
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return value
