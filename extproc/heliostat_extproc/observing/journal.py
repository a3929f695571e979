"""Follows each request from its arrival to the end of its answer, and tells how it went, once.

Three sources are joined by the ticket: the stream on which Envoy asked about the request, the entry
of Envoy's log of requests and those of its log of attempts. The stream's end comes with the
exchange's, entries up to a batch later and in no order, or never: then it is told without them.
"""

import time
from collections.abc import Callable, Sequence

from heliostat_extproc.conversation import Conversation
from heliostat_extproc.conversation import Outcome as Answered
from heliostat_extproc.errors import Reason
from heliostat_extproc.observing.request_record import UNMEASURED, Ending, RequestRecord
from heliostat_extproc.observing.timing import Timing
from heliostat_extproc.observing.trace_context import TraceContext
from heliostat_routing.commands import Command, Dispatch, Forward, WakeAt
from heliostat_routing.events import (
    AttemptFailed,
    AttemptStarted,
    DispatchFailed,
    Event,
    ForwardRefused,
    RequestArrived,
    RequestMeasured,
)

PATIENCE_SECONDS = 10.0
"""How long the entry of the access log is waited for after the end of the stream."""
LINGER_SECONDS = 0.25
"""How long entries of attempts are waited for once all else is known."""
MOST_AWAITED = 50_000
"""Requests that have ended and are not told yet."""
_TOLD_AT_ONCE = 2
"""Requests told with the end of another: more than one, so that none are left over."""

_Followed = AttemptStarted | AttemptFailed | DispatchFailed | ForwardRefused
_FOLLOWED = (AttemptStarted, AttemptFailed, DispatchFailed, ForwardRefused)
_SENT = (Answered.DISPATCHED, Answered.FORWARDED, Answered.FELL_OPEN)


class Journal:
    """The requests that go on. `tell` gets each once, when all is known of it."""

    def __init__(
        self, clock: Callable[[], float], tell: Sequence[Callable[[RequestRecord], None]]
    ) -> None:
        self._clock = clock
        self._tell = tuple(tell)
        self._open: dict[int, RequestRecord] = {}
        self._awaited: dict[int, RequestRecord] = {}
        self._lingering: dict[int, RequestRecord] = {}

    @property
    def unfinished(self) -> tuple[RequestRecord, ...]:
        """The requests that have not been told yet, oldest first."""
        ended = (*self._lingering.values(), *self._awaited.values())
        return (*ended, *self._open.values())

    def on_asked(
        self, arrival: RequestArrived, conversation: Conversation, trace: TraceContext | None
    ) -> None:
        """Open a request, just before the core is asked about it."""
        self._open[arrival.ticket] = RequestRecord(
            ticket=arrival.ticket,
            request_id=conversation.request_id,
            unix_seconds=time.time(),
            arrived_at=self._clock(),
            pool=arrival.pool,
            model=conversation.model,
            tenant=conversation.tenant,
            origin=arrival.origin,
            prompt_bytes=arrival.prompt_bytes,
            trace=trace,
        )

    def record(self, now: float, event: Event, commands: Sequence[Command]) -> None:
        """Keep what concerns a request of a step of the core."""
        if isinstance(event, _FOLLOWED):
            self._follow(now, event)
        for command in commands:
            if isinstance(command, WakeAt):
                continue
            record = self._open.get(command.ticket)
            if record is not None:
                record.note(now, command)
                if isinstance(command, Dispatch):
                    record.dispatched_at = now
                elif isinstance(command, Forward):
                    record.forwards += 1

    def _follow(self, now: float, event: _Followed) -> None:
        ticket = event.ticket
        record = self._open.get(ticket) or self._lingering.get(ticket) or self._awaited.get(ticket)
        if record is None:
            return
        record.note(now, event)
        if isinstance(event, AttemptFailed):
            record.failed_attempts += 1
        elif not isinstance(event, AttemptStarted):
            record.returns += 1

    def on_held(self, ticket: int, seconds: float) -> None:
        """Note how long a request was held."""
        record = self._open.get(ticket)
        if record is not None:
            record.held_seconds += seconds

    def on_returned(self, ticket: int, outcome: Answered | Reason) -> None:
        """End a request that was answered, or left by its client, after it had come back."""
        if outcome in _SENT or outcome is Answered.ANSWERED_HERE:
            return
        record = self._open.get(ticket)
        if record is not None:
            record.ending = _ending(outcome)
            return
        record = self._awaited.pop(ticket, None)
        if record is not None:
            record.ending = _ending(outcome)
            self._linger(record)

    def on_finished(self, ticket: int, conversation: Conversation, *, measured: bool) -> None:
        """End a request's stream. With `measured`, Envoy's log tells of what was sent."""
        record, now = self._open.pop(ticket, None), self._clock()
        if record is None:
            record = RequestRecord(
                ticket, conversation.request_id, time.time(), now, tenant=conversation.tenant
            )
        record.finished_at = now
        outcome = conversation.outcome
        if isinstance(outcome, Reason):
            record.ending = record.ending or outcome
        else:
            record.answered = outcome
        is_told = record.measured is not None or record.ending is not None
        if not measured or outcome not in _SENT or not record.pool:
            self._end(record)
        elif is_told:
            self._linger(record)
        else:
            self._await(record)
        self._tell_lingering(_TOLD_AT_ONCE)

    def on_measured(self, event: RequestMeasured, timing: Timing) -> None:
        """Take what Envoy's log says of the end of a request."""
        record = self._open.get(event.ticket)
        if record is not None:
            record.measured, record.timing = event, timing
            return
        record = self._awaited.pop(event.ticket, None)
        if record is not None:
            record.measured, record.timing = event, timing
            self._linger(record)

    def sweep(self) -> None:
        """Tell what is due, and the requests of which the log has said nothing in time."""
        self._tell_lingering(len(self._lingering))
        limit = self._clock() - PATIENCE_SECONDS
        while self._awaited:
            ticket, record = next(iter(self._awaited.items()))
            if record.finished_at is not None and record.finished_at > limit:
                return
            del self._awaited[ticket]
            self._end(record)

    def _await(self, record: RequestRecord) -> None:
        self._awaited[record.ticket] = record
        if len(self._awaited) > MOST_AWAITED:
            oldest = next(iter(self._awaited))
            self._end(self._awaited.pop(oldest))

    def _linger(self, record: RequestRecord) -> None:
        record.complete_at = self._clock()
        self._lingering[record.ticket] = record
        if len(self._lingering) > MOST_AWAITED:
            oldest = next(iter(self._lingering))
            self._end(self._lingering.pop(oldest))

    def _tell_lingering(self, most: int) -> None:
        limit = self._clock() - LINGER_SECONDS
        for _ in range(most):
            record = next(iter(self._lingering.values()), None)
            if record is None or record.complete_at > limit:
                return
            del self._lingering[record.ticket]
            self._end(record)

    def _end(self, record: RequestRecord) -> None:
        record.settle()
        for tell in self._tell:
            tell(record)


def _ending(outcome: Answered | Reason) -> Ending | Reason:
    return outcome if isinstance(outcome, Reason) else UNMEASURED[outcome]
