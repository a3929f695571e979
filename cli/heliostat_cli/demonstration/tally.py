"""What the clients of the three regions saw in one run: as it goes, by hour, and in the end."""

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from heliostat_cli.demonstration.sun import REGIONS
from heliostat_cli.loading.histogram import DurationHistogram
from heliostat_cli.loading.report import LAG_LIMIT_SECONDS, Outcome

RECENT_SECONDS = 5.0
_RECENT_REQUESTS = 500
_BINS = 48
"""Of a day."""
_CUT_FAILURES = ("connection", "truncated-stream")
_CUT_SECONDS = 3.0
"""Within which every client of a region that was killed has noticed."""


@dataclass(slots=True)
class RegionTally:
    """The requests of one region's clients."""

    served: int = 0
    cut: int = 0
    """Lost with the region that was killed."""
    errors: Counter[str] = field(default_factory=Counter)
    """Failed otherwise, by reason."""
    elsewhere: Counter[str] = field(default_factory=Counter)
    """Of those served, the ones whose own gateway did not answer, by the region they asked."""
    ttft: DurationHistogram = field(default_factory=DurationHistogram)
    recent: deque[tuple[float, float]] = field(
        default_factory=lambda: deque(maxlen=_RECENT_REQUESTS)
    )
    """When the last first tokens came, and how long they took."""

    def recent_ttft(self, percent: float) -> float | None:
        """A percentile of the last seconds; None where no first token has come in them."""
        since = time.perf_counter() - RECENT_SECONDS
        waits = sorted(wait for at, wait in self.recent if at >= since)
        return waits[min(len(waits) - 1, int(len(waits) * percent / 100))] if waits else None


class Tally:
    """All regions of one run. Times are by `time.perf_counter`."""

    def __init__(self, day_seconds: float) -> None:
        self._day_seconds = day_seconds
        self._began_at = time.perf_counter()
        self._killed_at: float | None = None
        self._ttft = DurationHistogram()
        self._by_hour = [DurationHistogram() for _ in range(_BINS)]
        self.regions = {region.name: RegionTally() for region in REGIONS}
        self.lag = DurationHistogram()
        """Of the event loop that is clients and sea at once."""

    def begin(self) -> None:
        """The day begins now."""
        self._began_at = time.perf_counter()

    @property
    def elapsed_seconds(self) -> float:
        """Since the day began."""
        return time.perf_counter() - self._began_at

    def on_kill(self) -> None:
        """A region is killed now: what breaks next breaks because of that."""
        self._killed_at = time.perf_counter()

    def record(self, region: str, asked: str, outcome: Outcome) -> None:
        """Count a request that has ended: whose client sent it, and the region of the gateway."""
        tally, now = self.regions[region], time.perf_counter()
        if outcome.failure is None:
            tally.served += 1
            if asked != region:
                tally.elsewhere[asked] += 1
            began_at = now - outcome.e2e_seconds
            tally.ttft.record(outcome.ttft_seconds)
            tally.recent.append((began_at + outcome.ttft_seconds, outcome.ttft_seconds))
            self._ttft.record(outcome.ttft_seconds)
            share = (began_at - self._began_at) / self._day_seconds
            self._by_hour[max(0, min(_BINS - 1, int(share * _BINS)))].record(outcome.ttft_seconds)
        elif self._was_cut(outcome.failure, now):
            tally.cut += 1
        else:
            tally.errors[outcome.failure] += 1

    def _was_cut(self, failure: str, now: float) -> bool:
        since_kill = None if self._killed_at is None else now - self._killed_at
        return since_kill is not None and since_kill < _CUT_SECONDS and failure in _CUT_FAILURES

    @property
    def served(self) -> int:
        """Requests that were answered in full."""
        return sum(tally.served for tally in self.regions.values())

    @property
    def cut(self) -> int:
        """Requests that were lost with the region that was killed."""
        return sum(tally.cut for tally in self.regions.values())

    @property
    def errors(self) -> Counter[str]:
        """Requests that failed otherwise, by reason."""
        return sum((tally.errors for tally in self.regions.values()), Counter())

    @property
    def failed(self) -> int:
        """Requests that failed otherwise."""
        return self.errors.total()

    @property
    def valid(self) -> bool:
        """Whether this process kept up, so that the times are the gateways' and engines'."""
        return (self.lag.percentile(99) or 0.0) <= LAG_LIMIT_SECONDS

    def ttft(self, percent: float) -> float | None:
        """A percentile over all regions; None before the first token."""
        return self._ttft.percentile(percent)

    def ttft_by_hour(self, percent: float) -> list[float | None]:
        """The same for each half hour of the day in which requests were sent."""
        return [bin_.percentile(percent) for bin_ in self._by_hour]

    def to_json(self) -> dict[str, Any]:
        """The run as plain data."""
        return {
            "served": self.served,
            "cut_by_the_kill": self.cut,
            "failed": self.failed,
            "errors": dict(self.errors.most_common()),
            "ttft_seconds": {f"p{p}": self.ttft(p) for p in (50, 90, 99)},
            "ttft_p90_seconds_by_half_hour": self.ttft_by_hour(90),
            "regions": {name: _region_json(tally) for name, tally in self.regions.items()},
            "event_loop_lag_p99_seconds": self.lag.percentile(99),
            "valid": self.valid,
        }


def _region_json(tally: RegionTally) -> dict[str, Any]:
    return {
        "served": tally.served,
        "cut_by_the_kill": tally.cut,
        "errors": dict(tally.errors.most_common()),
        "ttft_seconds": {f"p{p}": tally.ttft.percentile(p) for p in (50, 90)},
    }
