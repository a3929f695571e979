"""One endpoint as the router believes it to be: what was sent to it, and what its engine reported.

Scrapes are always old. What the router has sent since is added to them, and what it saw finish is
taken off, until the engine's own cumulative counts cover it.
"""

from collections import deque
from itertools import islice

from heliostat_routing.admission_clock import AdmissionClock
from heliostat_routing.breaker import Breaker
from heliostat_routing.events import EndpointLearned, EngineMetrics
from heliostat_routing.hit_audit import HitAudit
from heliostat_routing.prefill_model import PrefillModel
from heliostat_routing.progress import Progress

STEP_WEIGHT = 0.1
"""What the latest answer weighs in the length of a step: about 10 count."""

LONGEST_STEP_SECONDS = 60.0
"""A sibling that tells of a longer step is not believed."""


class Endpoint:
    """The state of one address, shared by all pools that contain it."""

    def __init__(self, address: str, slot: int, prefill: PrefillModel, now: float) -> None:
        self.address = address
        self.slot = slot
        self.pending_limit = 0
        self.kv_capacity_tokens = 0
        self.clock = AdmissionClock()
        self.breaker = Breaker()
        self.prefill = prefill
        self.audit = HitAudit()
        self.metrics: EngineMetrics | None = None
        self.inflight = 0
        self.load = 0
        self._progress = Progress(now)
        self._silent = False
        self._dispatched = 0
        self._unseen_base = 0
        self._unexplained = 0
        """Requests that the last scrape has counted and this router did not know of."""
        self._scraped_at = 0.0
        self._recent: deque[tuple[int, float]] = deque()
        self._recent_kv_tokens = 0.0
        self.step_seconds = 0.0
        """How long a step of the engine takes: a running mean of its time per output token."""
        self._unprefilled: dict[int, tuple[float, float]] = {}
        self._prefilled_ahead = 0
        self._waiting_left = 0
        self._finished_since_scrape = 0
        self._kv_freed_tokens = 0.0

    def assume_kv_capacity(self, tokens: int) -> None:
        """Take over what the operator says; an engine's own report of its KV capacity wins."""
        if self.metrics is None or self.metrics.kv_capacity_tokens is None:
            self.kv_capacity_tokens = tokens

    # What the router did

    def on_dispatch(
        self, ticket: int, start: float, work_seconds: float, kv_tokens: float
    ) -> float:
        """Account a dispatch that arrives at `start`; return when its prefill will be done.

        One of which this router hears late may be in the last scrape already.
        """
        if not self._unprefilled and not self.stalled:
            self._progress.on_sign(start, work_seconds)
        self._dispatched += 1
        if start < self._scraped_at and self._unexplained:
            self._unexplained -= 1
            self._unseen_base -= 1
        else:
            self._recent.append((ticket, kv_tokens))
            self._recent_kv_tokens += kv_tokens
        self._unprefilled[ticket] = start, work_seconds
        self.breaker.on_dispatch(ticket, start)
        return self.clock.push(ticket, start, work_seconds)

    def on_uncounted(self, ticket: int, *, had_output: bool = False) -> None:
        """Stop waiting for the engine to count this dispatch: it will not.

        vLLM counts neither what it refuses nor what its client aborts, and cannot count what never
        reached it. The clock entry stays: an endpoint that fails fast must not look idle.
        """
        self._dispatched -= 1
        if self._unprefilled.pop(ticket, None) is not None and had_output:
            self._prefilled_ahead += 1
        for entry in self._recent:
            if entry[0] == ticket:
                self._recent.remove(entry)
                self._recent_kv_tokens -= entry[1]
                break

    def on_prefilled(self, ticket: int) -> None:
        """The engine has counted this dispatch's first token before this router heard of it."""
        self._unprefilled.pop(ticket, None)

    def on_output(self, ticket: int, now: float) -> None:
        """The request has had output, so its prefill was done; the next scrape will count it."""
        self.clock.release(ticket, now)
        if self._unprefilled.pop(ticket, None) is not None:
            self._prefilled_ahead += 1

    def on_served(self, now: float) -> None:
        """The engine has served a request to its end: it works."""
        self.breaker.on_success()
        self._progress.on_sign(now, self._next_prefill_seconds())

    def observe_step(self, seconds: float) -> None:
        """Learn from an answer how long a step takes."""
        if self.step_seconds:
            self.step_seconds += (seconds - self.step_seconds) * STEP_WEIGHT
        else:
            self.step_seconds = seconds

    @property
    def learned(self) -> EndpointLearned:
        """What a router that comes late is told of it."""
        return EndpointLearned(self.address, self.prefill.samples, self.step_seconds)

    def learn_from(self, told: EndpointLearned) -> None:
        """Know what a sibling has learned, where that is more."""
        self.prefill.take_over(told.prefill)
        if not self.step_seconds and 0 < told.step_seconds <= LONGEST_STEP_SECONDS:
            self.step_seconds = told.step_seconds

    def on_finish(self, ticket: int, now: float, kv_tokens: float) -> None:
        """Account a finished request: what it held is free, and one that waited can run."""
        self._finished_since_scrape += 1
        self._kv_freed_tokens += kv_tokens
        if self._waiting_left:
            self._set_waiting(self._waiting_left - 1, now)

    def count(self, inflight: int) -> None:
        """Take over the ledger's count, and estimate the engine's load from it and the scrape."""
        self.inflight = inflight
        while len(self._recent) > inflight:
            self._recent_kv_tokens -= self._recent.popleft()[1]
        metrics = self.metrics
        if metrics is None:
            self.load = inflight
            return
        reported = metrics.running_requests + metrics.waiting_requests
        self.load = max(inflight, reported + len(self._recent) - self._finished_since_scrape)

    # What the engine reported

    def on_scrape(self, metrics: EngineMetrics, now: float) -> bool:
        """Take over a scrape; return whether the engine has restarted since the last one."""
        before, restarted = self.metrics, self._has_restarted(metrics)
        if restarted:
            self.clock.reset()
            self.step_seconds = 0.0
            self.audit = HitAudit()
        if restarted or not self.inflight:
            self._unprefilled.clear()
            self._prefilled_ahead = 0
        elif before is not None:
            self._note_prefills(before, metrics, now)
        self.metrics = metrics
        self._scraped_at = now
        self._silent = False
        if metrics.kv_capacity_tokens is not None:
            self.kv_capacity_tokens = metrics.kv_capacity_tokens
        self._settle_unseen(metrics, fresh=before is None or restarted)
        self._finished_since_scrape = 0
        self._kv_freed_tokens = 0.0
        self._set_waiting(max(0, metrics.waiting_requests - self._expected_waiting(now)), now)
        if before is None or restarted or not self.inflight or _has_moved(before, metrics):
            self._progress.on_sign(now, self._next_prefill_seconds())
        else:
            self._judge_progress(now)
        self.count(self.inflight)
        return restarted

    def on_scrape_failed(self, now: float) -> None:
        """An engine that used to report and has gone silent is judged by it.

        An idle one may not have been asked for long: its silence begins with the first failure.
        """
        if self.metrics is None:
            return
        if not self._silent and not self.inflight:
            self._progress.on_sign(now, 0.0)
        self._silent = True
        self._judge_progress(now)

    # What follows

    @property
    def stalled(self) -> bool:
        """Whether the engine has shown no sign of life for longer than its work explains."""
        return self._progress.stalled

    def pending(self, now: float) -> int:
        """Requests believed to wait in the engine for longer than the step under way.

        What comes during a step is computed in the next, together: it does not wait for another.
        """
        pending, waiting = self.clock.waiting(now, self.step_seconds), self._waiting_left
        return pending if pending > waiting else waiting

    def available(self, now: float) -> bool:
        """Whether a request sent now would start without waiting."""
        return self.serving(now) and self.pending(now) <= self.pending_limit

    def serving(self, now: float) -> bool:
        """Whether the endpoint is believed to work."""
        if self._progress.stalled and self.inflight:
            return False
        return self.breaker.admits(now)

    def changes_at(self, now: float) -> float | None:
        """When time alone makes the endpoint available; None if it takes an event."""
        if (self.stalled and self.inflight) or self._waiting_left > self.pending_limit:
            return None
        admits_at = self.breaker.admits_at
        if admits_at is not None and now < admits_at:
            return admits_at
        return self.clock.frees_at(now, self.pending_limit, self.step_seconds)

    def wait_seconds(self, now: float, request_seconds: float) -> float:
        """Predicted time until a request sent now would start its prefill.

        `request_seconds` is how long requests take on average: where requests wait for KV room, one
        of `load` ends every `request_seconds / load`.
        """
        wait = self.clock.done_at(now) - now
        if self._waiting_left:
            wait += self._waiting_left * request_seconds / max(1, self.load - self._waiting_left)
        return wait

    def kv_wait_seconds(
        self, kv_tokens: float, request_seconds: float, spare_tokens: float = 0.0
    ) -> float:
        """Predicted time until finishing requests have released room for so many tokens.

        So much is spared on top. A request that would not fit an empty engine does not wait: the
        engine has to judge it.
        """
        if self.metrics is None or kv_tokens >= self.kv_capacity_tokens:
            return 0.0
        used = self.kv_used_tokens()
        shortfall = kv_tokens + spare_tokens - (self.kv_capacity_tokens - used)
        return shortfall * request_seconds / used if shortfall > 0 and used > 0 else 0.0

    def kv_used_tokens(self) -> float:
        """KV room that running requests hold: the scrape, and what was sent and ended since."""
        if self.metrics is None:
            return 0.0
        scraped = self.metrics.kv_cache_utilization * self.kv_capacity_tokens
        return max(0.0, scraped + self._recent_kv_tokens - self._kv_freed_tokens)

    def _has_restarted(self, metrics: EngineMetrics) -> bool:
        before = self.metrics
        if before is None:
            return False
        started = before.started_milliseconds, metrics.started_milliseconds
        if None not in started and started[0] != started[1]:
            return True
        return (
            metrics.finished_requests < before.finished_requests
            or metrics.prompt_tokens < before.prompt_tokens
            or metrics.generation_tokens < before.generation_tokens
        )

    def _note_prefills(self, before: EngineMetrics, metrics: EngineMetrics, now: float) -> None:
        """Take the oldest dispatches off the clock whose first tokens the engine has counted."""
        if before.first_tokens is None or metrics.first_tokens is None:
            return
        counted = metrics.first_tokens - before.first_tokens
        known = min(counted, self._prefilled_ahead)
        self._prefilled_ahead -= known
        for ticket in list(islice(self._unprefilled, max(0, counted - known))):
            del self._unprefilled[ticket]
            self.clock.release(ticket, now)
            self.breaker.on_probe_output(ticket)

    def _expected_waiting(self, now: float) -> int:
        """Dispatches that may well wait in the engine: for the step under way, or for others."""
        step = self.step_seconds
        fresh = sum(start + work + step >= now for start, work in self._unprefilled.values())
        return max(fresh, self.clock.pending(now))

    def _settle_unseen(self, metrics: EngineMetrics, *, fresh: bool) -> None:
        """Find how many dispatches the scrape does not cover yet: by counts, never by age.

        With nothing in flight the count starts afresh, whatever the engine did not count before.
        """
        reported = metrics.running_requests + metrics.waiting_requests
        seen = reported + metrics.finished_requests
        if fresh or not self.inflight:
            unseen = max(0, self.inflight - reported)
            self._unseen_base = seen - self._dispatched + unseen
            self._unexplained = max(0, reported - self.inflight)
        else:
            self._unexplained = max(0, seen - self._dispatched - self._unseen_base)
            self._unseen_base += self._unexplained
        unseen = min(self.inflight, self._dispatched - (seen - self._unseen_base))
        while len(self._recent) > unseen:
            self._recent_kv_tokens -= self._recent.popleft()[1]

    def _set_waiting(self, waiting: int, now: float) -> None:
        """While requests wait that should have started, the admission clock stands still."""
        self._waiting_left = waiting
        if waiting:
            self.clock.stop(now)
        else:
            self.clock.run(now)

    def _judge_progress(self, now: float) -> None:
        """Take a stalled engine out; once it is empty, one request at a time may try it."""
        if self._progress.judge(now):
            self.breaker.trip(now)

    def _next_prefill_seconds(self) -> float:
        """How long the oldest prefill under way may take before it shows."""
        return next(iter(self._unprefilled.values()), (0.0, 0.0))[1]


def _has_moved(before: EngineMetrics, metrics: EngineMetrics) -> bool:
    return (
        metrics.generation_tokens != before.generation_tokens
        or metrics.prompt_tokens != before.prompt_tokens
        or metrics.finished_requests != before.finished_requests
    )
