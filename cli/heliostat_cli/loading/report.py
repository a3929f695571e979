"""What a load run measured, as it goes and at its end."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from heliostat_cli.loading.histogram import DurationHistogram

LAG_LIMIT_SECONDS = 0.02
"""A run whose own event loop lags more than this at its 99th percentile is not valid."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands."""

    elapsed_seconds: float
    requests: int
    """Finished, well or not."""
    failed: int
    active: int
    """Sent and not yet answered."""
    ttft_p50_seconds: float | None
    ttft_p90_seconds: float | None
    hit_ratio: float | None
    output_tokens: int
    event_loop_lag_p99_seconds: float | None


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a run measured: latencies, tokens and throughput of the requests that did not fail."""

    workload: str
    seed: int
    requests: int
    """Finished, well or not; those cut off by an interrupt are not counted."""
    failed: int
    errors: dict[str, int]
    """Failed requests by reason."""
    hit_ratio: float | None
    """Cached prompt tokens per prompt token, where engines report them; None if none did."""
    ttft_seconds: dict[str, float | None]
    """Percentiles of the time to the first chunk with content."""
    time_between_tokens_seconds: dict[str, float | None]
    """Percentiles of the time between two chunks with content (failed requests' included)."""
    e2e_seconds: dict[str, float | None]
    output_tokens_per_second: float
    input_tokens_per_second: float
    requests_per_second: float
    duration_seconds: float
    """From the first request to the last answer."""
    event_loop_lag_seconds: dict[str, float | None]
    engine_lag_p99_seconds: float | None = None
    """The event-loop lag of the engine stand-ins over their life, where they were asked."""
    interrupted: bool = False
    """Whether the run was stopped from outside before its end."""

    @property
    def valid(self) -> bool:
        """Whether load tool and stand-ins kept up, so that the latencies are the service's."""
        lag = self.event_loop_lag_seconds["p99"]
        own = lag is not None and lag <= LAG_LIMIT_SECONDS
        return own and (self.engine_lag_p99_seconds or 0.0) <= LAG_LIMIT_SECONDS

    def to_json(self) -> dict[str, object]:
        """The report as plain data; a percentile without samples is None."""
        return {
            "workload": self.workload,
            "seed": self.seed,
            "requests": self.requests,
            "failed": self.failed,
            "errors": dict(self.errors),
            "hit_ratio": self.hit_ratio,
            "ttft_seconds": dict(self.ttft_seconds),
            "time_between_tokens_seconds": dict(self.time_between_tokens_seconds),
            "e2e_seconds": dict(self.e2e_seconds),
            "output_tokens_per_second": self.output_tokens_per_second,
            "input_tokens_per_second": self.input_tokens_per_second,
            "requests_per_second": self.requests_per_second,
            "duration_seconds": self.duration_seconds,
            "event_loop_lag_seconds": dict(self.event_loop_lag_seconds),
            "engine_lag_p99_seconds": self.engine_lag_p99_seconds,
            "valid": self.valid,
            "interrupted": self.interrupted,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended. Its times are relative to when it was due to be sent."""

    failure: str | None = None
    """The reason in the words of the report; None if it did not fail."""
    connected: bool = True
    """False if nobody took the connection, so that the request has never been sent."""
    ttft_seconds: float = 0.0
    e2e_seconds: float = 0.0
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int | None = None
    escaped_text: bytes = b""
    """The answer as it stands inside JSON quotes, where it was asked for."""


class Measurements:
    """Gathers outcomes in bounded memory."""

    def __init__(self) -> None:
        self._created_at = self._ended_at = time.perf_counter()
        self._began_at: float | None = None
        self._requests = 0
        self._errors: Counter[str] = Counter()
        self._ttft = DurationHistogram()
        self._e2e = DurationHistogram()
        self._prompt_tokens = 0
        self._output_tokens = 0
        self._known_prompt_tokens = 0
        self._cached_tokens = 0
        self.token_gaps = DurationHistogram()
        self.lag = DurationHistogram()
        self.engine_lag_p99_seconds: float | None = None
        self.active = 0
        """Requests sent and not yet answered."""

    def on_send(self) -> None:
        """Note that a request is sent: the first one begins the run."""
        if self._began_at is None:
            self._began_at = time.perf_counter()

    def record(self, outcome: Outcome) -> None:
        """Count one finished request."""
        self._ended_at = time.perf_counter()
        self._requests += 1
        if outcome.failure is not None:
            self._errors[outcome.failure] += 1
            return
        self._ttft.record(outcome.ttft_seconds)
        self._e2e.record(outcome.e2e_seconds)
        self._prompt_tokens += outcome.prompt_tokens
        self._output_tokens += outcome.output_tokens
        if outcome.cached_tokens is not None:
            self._known_prompt_tokens += outcome.prompt_tokens
            self._cached_tokens += outcome.cached_tokens

    @property
    def _hit_ratio(self) -> float | None:
        if not self._known_prompt_tokens:
            return None
        return self._cached_tokens / self._known_prompt_tokens

    def progress(self) -> Progress:
        """Where the run stands now."""
        return Progress(
            elapsed_seconds=time.perf_counter() - self._created_at,
            requests=self._requests,
            failed=self._errors.total(),
            active=self.active,
            ttft_p50_seconds=self._ttft.percentile(50),
            ttft_p90_seconds=self._ttft.percentile(90),
            hit_ratio=self._hit_ratio,
            output_tokens=self._output_tokens,
            event_loop_lag_p99_seconds=self.lag.percentile(99),
        )

    def report(self, workload: str, seed: int, interrupted: bool) -> LoadReport:
        """The run's result, up to the last finished request."""
        duration_seconds = self._ended_at - (self._began_at or self._ended_at)
        rate = 1 / duration_seconds if duration_seconds > 0 else 0.0
        lag = _percentiles(self.lag, (50, 99))
        return LoadReport(
            workload=workload,
            seed=seed,
            requests=self._requests,
            failed=self._errors.total(),
            errors=dict(self._errors.most_common()),
            hit_ratio=self._hit_ratio,
            ttft_seconds=_percentiles(self._ttft, (50, 90, 99)),
            time_between_tokens_seconds=_percentiles(self.token_gaps, (50, 90, 99)),
            e2e_seconds=_percentiles(self._e2e, (50, 90)),
            output_tokens_per_second=self._output_tokens * rate,
            input_tokens_per_second=self._prompt_tokens * rate,
            requests_per_second=(self._requests - self._errors.total()) * rate,
            duration_seconds=duration_seconds,
            event_loop_lag_seconds=lag | {"max": self.lag.max_seconds},
            engine_lag_p99_seconds=self.engine_lag_p99_seconds,
            interrupted=interrupted,
        )


def _percentiles(histogram: DurationHistogram, percents: Sequence[int]) -> dict[str, float | None]:
    return {f"p{percent}": histogram.percentile(percent) for percent in percents}
