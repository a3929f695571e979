"""What is worth a row in a table: a number of a report, with how to show and to judge it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from heliostat_sim.evaluation.report import Report

ABSENT = "-"


class Better(StrEnum):
    """Which way a measure should go."""

    LOWER = "lower"
    HIGHER = "higher"
    NEITHER = "neither"
    """It explains others and is not compared."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of a report."""

    field: str
    """The field of `Report`."""
    label: str
    """In tables."""
    axis: str
    """In plots, with the unit."""
    show: Callable[[float | None], str]
    better: Better = Better.NEITHER

    def value(self, report: Report) -> float | None:
        """What it is in this report."""
        value = getattr(report, self.field)
        return None if value is None else float(value)


def duration(seconds: float | None) -> str:
    """A duration in a unit that suits it."""
    if seconds is None:
        return ABSENT
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.0995 else f"{seconds * 1000:.3g} ms"
    return f"{seconds:.2f} s" if seconds < 99.995 else f"{seconds:.0f} s"


def percentage(ratio: float | None) -> str:
    """A share of one as a percentage."""
    return ABSENT if ratio is None else f"{ratio:.1%}"


def number(value: float | None) -> str:
    """A number with three digits at least."""
    if value is None:
        return ABSENT
    whole = value == int(value) and abs(value) < 1000
    return f"{value:.0f}" if whole else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def factor(value: float | None) -> str:
    """How many times as much."""
    return ABSENT if value is None else f"{value:.2f}x"


_LOWER, _HIGHER = Better.LOWER, Better.HIGHER

HEADLINES = (
    Measure(
        "throughput_tokens_per_second",
        "throughput (in + 2 out)/s",
        "Throughput (input + 2 output tokens/s)",
        number,
        _HIGHER,
    ),
    Measure("output_tokens_per_second", "output tokens/s", "Output (tokens/s)", number, _HIGHER),
    Measure("ttft_mean_seconds", "TTFT mean", "Mean time to first token (s)", duration, _LOWER),
    Measure("ttft_p50_seconds", "TTFT p50", "Median time to first token (s)", duration, _LOWER),
    Measure("ttft_p90_seconds", "TTFT p90", "P90 time to first token (s)", duration, _LOWER),
    Measure("ttft_p99_seconds", "TTFT p99", "P99 time to first token (s)", duration, _LOWER),
    Measure("e2e_p50_seconds", "end to end p50", "Median end to end (s)", duration, _LOWER),
    Measure("e2e_p90_seconds", "end to end p90", "P90 end to end (s)", duration, _LOWER),
    Measure("slo_ratio", "TTFT in time", "First tokens in time (share)", percentage, _HIGHER),
    Measure("hit_ratio", "hit ratio", "Cached prompt tokens (share)", percentage, _HIGHER),
    Measure("failed_ratio", "failed", "Failed requests (share)", percentage, _LOWER),
)
"""What policies are judged by."""

MEASURES = (
    *HEADLINES,
    Measure("requests_per_second", "requests/s", "Served (requests/s)", number, _HIGHER),
    Measure(
        "good_requests_per_second",
        "requests/s in time",
        "Served in time (requests/s)",
        number,
        _HIGHER,
    ),
    Measure("e2e_p99_seconds", "end to end p99", "P99 end to end (s)", duration, _LOWER),
    Measure(
        "time_per_output_token_p50_seconds",
        "per output token p50",
        "Median time per output token (s)",
        duration,
        _LOWER,
    ),
    Measure(
        "time_per_output_token_p90_seconds",
        "per output token p90",
        "P90 time per output token (s)",
        duration,
        _LOWER,
    ),
    Measure("imbalance_mean_ratio", "load max/mean", "Load, greatest over mean", factor, _LOWER),
    Measure("imbalance_least_ratio", "load max/min", "Load, greatest over least", factor, _LOWER),
    Measure("cross_region_ratio", "cross-region", "Served elsewhere (share)", percentage),
    Measure("queued_mean_requests", "held, mean", "Held by gateways (requests)", number),
    Measure("preemptions", "preemptions", "Preemptions", number, _LOWER),
    Measure("prefill_tokens", "prefill tokens", "Prefill computed (tokens)", number),
    Measure("gpu_hours", "GPU hours", "GPU hours", number),
    Measure("messages", "state messages", "State messages", number),
    Measure("message_bytes", "state bytes", "State messages (bytes)", number),
    Measure("served", "served", "Served requests", number),
    Measure("rejected", "rejected", "Rejected requests", number),
    Measure("expired", "expired", "Expired requests", number),
    Measure("broken", "broken", "Broken requests", number),
    Measure("resent", "sent again", "Requests sent again", number),
    Measure("still_open", "open at the end", "Requests open at the end", number),
    Measure("lost", "lost", "Lost requests", number),
    Measure("hung", "hung", "Hung requests", number),
)
"""All that a report tells, headlines first."""


def measure_named(field: str) -> Measure:
    """The measure with this field's name; `KeyError` if there is none."""
    return _BY_FIELD[field]


_BY_FIELD = {measure.field: measure for measure in MEASURES}
