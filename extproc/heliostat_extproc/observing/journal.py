"""Follows each request from its arrival to the end of its answer, and tells how it went, once.

Two sources are joined by the ticket: the stream on which Envoy asked about the request, and the
entry of Envoy's access log. The stream's end comes with the exchange's, the entry up to a batch
later, or never: then the request is told without it.
"""

import time
from collections.abc import Callable, Sequence

from heliostat_extproc.conversation import Conversation
from heliostat_extproc.conversation import Outcome as Answered
from heliostat_extproc.errors import Reason
from heliostat_extproc.observing.request_record import UNMEASURED, Ending, RequestRecord
from heliostat_extproc.observing.timing import Timing
from heliostat_extproc.observing.trace_context import TraceContext
from heliostat_routing.commands import Command, Dispatch, WakeAt
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
MOST_AWAITED = 50_000
"""Requests whose entry is waited for."""

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

    @property
    def unfinished(self) -> tuple[RequestRecord, ...]:
        """The requests that have not been told yet, oldest first."""
        return (*self._awaited.values(), *self._open.values())

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
            origin=arrival.origin,
            prompt_bytes=arrival.prompt_bytes,
            trace=trace,
        )

    def record(self, now: float, event: Event, commands: Sequence[Command]) -> None:
        """Keep what concerns a request of a step of the core."""
        if isinstance(event, _FOLLOWED):
            self._follow(now, event)
        for command in commands:
            if not isinstance(command, WakeAt):
                record = self._open.get(command.ticket)
                if record is not None:
                    record.note(now, command)
                    if type(command) is Dispatch:
                        record.dispatched_at = now

    def _follow(
        self, now: float, event: AttemptStarted | AttemptFailed | DispatchFailed | ForwardRefused
    ) -> None:
        record = self._open.get(event.ticket) or self._awaited.get(event.ticket)
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
            self._end(record)

    def on_finished(self, ticket: int, conversation: Conversation, *, measured: bool) -> None:
        """End a request's stream. With `measured`, Envoy's log tells of what was sent."""
        record, now = self._open.pop(ticket, None), self._clock()
        if record is None:
            record = RequestRecord(ticket, conversation.request_id, time.time(), now)
        record.finished_at = now
        outcome = conversation.outcome
        if isinstance(outcome, Reason):
            record.ending = record.ending or outcome
        else:
            record.answered = outcome
        is_told = record.measured is not None or record.ending is not None
        if measured and outcome in _SENT and record.pool and not is_told:
            self._await(record)
        else:
            self._end(record)

    def on_measured(self, event: RequestMeasured, timing: Timing) -> None:
        """Take what Envoy's log says of the end of a request."""
        record = self._open.get(event.ticket)
        if record is not None:
            record.measured, record.timing = event, timing
            return
        record = self._awaited.pop(event.ticket, None)
        if record is not None:
            record.measured, record.timing = event, timing
            self._end(record)

    def sweep(self) -> None:
        """Tell the requests of which the log has said nothing in time."""
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

    def _end(self, record: RequestRecord) -> None:
        record.settle()
        for tell in self._tell:
            tell(record)


def _ending(outcome: Answered | Reason) -> Ending | Reason:
    return outcome if isinstance(outcome, Reason) else UNMEASURED[outcome]
