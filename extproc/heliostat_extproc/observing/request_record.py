"""What is known of one request: where it came from, each step of its way, and how it ended."""

from dataclasses import dataclass, field
from enum import StrEnum

from heliostat_extproc.conversation import Outcome as Answered
from heliostat_extproc.errors import Reason
from heliostat_extproc.observing.timing import Timing
from heliostat_extproc.observing.trace_context import TraceContext
from heliostat_routing.commands import Dispatch, Enqueue, Evict, Forward, Reject
from heliostat_routing.events import (
    AttemptFailed,
    AttemptStarted,
    DispatchFailed,
    ForwardRefused,
    Outcome,
    RequestMeasured,
)
from heliostat_routing.peers import region_account

_REGION = region_account("")
MOST_STEPS = 64
"""Of one request; what comes after is not kept."""


class Ending(StrEnum):
    """How a request ended, where it was not refused for a `Reason`."""

    SERVED = "served"
    SERVED_ELSEWHERE = "served-elsewhere"
    """By another region."""
    REFUSED_BY_ENGINE = "refused-by-engine"
    """The engine answered 4xx."""
    ENGINE_FAILED = "engine-failed"
    """Before or in the middle of its answer."""
    CLIENT_LEFT = "client-left"
    ANSWERED_HERE = "answered-here"
    """What needs no engine, such as the list of models."""
    FELL_OPEN = "fell-open"
    """Envoy balanced it; its end is not known."""
    DISPATCHED = "dispatched"
    """Its end is not known: another gateway's, or Envoy's log of it is lost."""


UNMEASURED = {
    Answered.DISPATCHED: Ending.DISPATCHED,
    Answered.FORWARDED: Ending.DISPATCHED,
    Answered.FELL_OPEN: Ending.FELL_OPEN,
    Answered.ANSWERED_HERE: Ending.ANSWERED_HERE,
    Answered.CLIENT_LEFT: Ending.CLIENT_LEFT,
}
"""How a request has ended of which Envoy's log says nothing."""
_MEASURED = {
    Outcome.SERVED: Ending.SERVED,
    Outcome.REFUSED: Ending.REFUSED_BY_ENGINE,
    Outcome.ENGINE_FAILED: Ending.ENGINE_FAILED,
    Outcome.CLIENT_ABORTED: Ending.CLIENT_LEFT,
}

Step = (
    Dispatch
    | Forward
    | Enqueue
    | Reject
    | Evict
    | AttemptStarted
    | AttemptFailed
    | DispatchFailed
    | ForwardRefused
)
"""What is kept of a request's way: what was decided of it, and what came of that."""


@dataclass(slots=True, eq=False)
class RequestRecord:
    """One request. Instants are on the event loop's clock, but for `unix_seconds`."""

    ticket: int
    request_id: str
    unix_seconds: float
    """When it arrived, since 1970."""
    arrived_at: float
    pool: str = ""
    model: str = ""
    """As the engines know it; never what a client has written."""
    tenant: str = ""
    """Whose it is, where tenants alone are let in."""
    origin: str | None = None
    """The peer's router that has forwarded it."""
    prompt_bytes: int = 0
    trace: TraceContext | None = None
    steps: list[tuple[float, Step]] = field(default_factory=list)
    answered: Answered = Answered.CLIENT_LEFT
    """What Envoy was told to do with it."""
    dispatched_at: float | None = None
    held_seconds: float = 0.0
    forwards: int = 0
    failed_attempts: int = 0
    returns: int = 0
    """Times that it came back unanswered."""
    ending: Ending | Reason | None = None
    """None while it goes on."""
    finished_at: float | None = None
    complete_at: float = 0.0
    """When all was known of it but for attempts."""
    measured: RequestMeasured | None = None
    timing: Timing | None = None

    def note(self, now: float, step: Step) -> None:
        """Keep a step of its way."""
        if len(self.steps) < MOST_STEPS:
            self.steps.append((now, step))

    def settle(self) -> Ending | Reason:
        """Say how it ended, as far as is known now."""
        if self.ending is None:
            self.ending = self._told_ending()
        return self.ending

    def _told_ending(self) -> Ending:
        if self.measured is None:
            return UNMEASURED[self.answered]
        ending = _MEASURED[self.measured.outcome]
        if ending is Ending.SERVED and self.region is not None:
            return Ending.SERVED_ELSEWHERE
        return ending

    @property
    def is_served(self) -> bool:
        """Whether the client has got an answer."""
        return self.ending in (Ending.SERVED, Ending.SERVED_ELSEWHERE)

    @property
    def endpoint(self) -> str | None:
        """Who has answered, or was to: an endpoint's address, or `region/NAME`."""
        if self.measured is not None and self.measured.endpoint is not None:
            return self.measured.endpoint
        for _, step in reversed(self.steps):
            if isinstance(step, AttemptStarted):
                return step.endpoint
            if isinstance(step, Dispatch):
                return step.endpoints[0] if step.endpoints else None
            if isinstance(step, Forward):
                return region_account(step.region)
        return None

    @property
    def region(self) -> str | None:
        """The other region that has answered, or was to."""
        endpoint = self.endpoint
        if endpoint is None or not endpoint.startswith(_REGION):
            return None
        return endpoint.removeprefix(_REGION)

    @property
    def retries(self) -> int:
        """Attempts beyond the first."""
        failed = self.failed_attempts
        return max(0, failed - 1) if self.ending is Ending.ENGINE_FAILED else failed

    @property
    def ttft_seconds(self) -> float | None:
        """Until the first byte of the answer, of a stream."""
        measured, timing = self.measured, self.timing
        if measured is None or timing is None or measured.ttft_seconds is None:
            return None
        return self._sent_seconds(timing) + measured.ttft_seconds

    def _sent_seconds(self, timing: Timing) -> float:
        """Envoy's word knows of retries, but only of the last time that the request came back."""
        sent = timing.sent_seconds or 0.0
        if self.returns and self.dispatched_at is not None:
            return max(sent, self.dispatched_at - self.arrived_at)
        return sent

    @property
    def total_seconds(self) -> float | None:
        """Until the end of the answer."""
        if self.timing is not None and self.timing.total_seconds is not None and not self.returns:
            return self.timing.total_seconds
        return None if self.finished_at is None else self.finished_at - self.arrived_at

    @property
    def tpot_seconds(self) -> float | None:
        """Mean time between two tokens, of a stream whose usage is told."""
        measured = self.measured
        if measured is None or measured.ttft_seconds is None or measured.duration_seconds is None:
            return None
        tokens = measured.output_tokens
        if tokens is None or tokens < 2:
            return None
        return max(0.0, measured.duration_seconds - measured.ttft_seconds) / (tokens - 1)
