"""All that follows requests, in one place: the journal, and who is told by it."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from heliostat_extproc.conversation import Conversation
from heliostat_extproc.observing.access_log_file import AccessLogFile
from heliostat_extproc.observing.journal import Journal
from heliostat_extproc.observing.kept_requests import KeepSettings, KeptRequests
from heliostat_extproc.observing.request_metrics import RequestMetrics
from heliostat_extproc.observing.request_story import story
from heliostat_extproc.observing.span_exporter import SpanExporter
from heliostat_extproc.observing.trace_context import parse_sampled
from heliostat_extproc.observing.trace_settings import TraceSettings
from heliostat_extproc.telemetry import Telemetry
from heliostat_routing.events import RequestArrived

MOST_STORIES = 100
"""In one answer."""


class Observation:
    """Watches the requests of one router, from the question to the end of the answer."""

    def __init__(
        self,
        telemetry: Telemetry,
        *,
        keep: KeepSettings,
        access_log: AccessLogFile | None = None,
        traces: TraceSettings | None = None,
        router: str = "",
    ) -> None:
        self._telemetry = telemetry
        self._exporter = None if traces is None else SpanExporter(traces, router)
        self._kept = KeptRequests(keep, lambda: self.journal.unfinished)
        tell = [RequestMetrics(telemetry.registry).tell, self._kept.tell]
        if access_log is not None:
            tell.append(access_log.tell)
        if self._exporter is not None:
            tell.append(self._exporter.tell)
        self.journal = Journal(asyncio.get_running_loop().time, tell)
        telemetry.watch_told(
            lambda: 0 if access_log is None else access_log.lost_lines,
            lambda: 0 if self._exporter is None else self._exporter.lost_spans,
        )

    @property
    def follows_traces(self) -> bool:
        """Whether the trace context of requests matters."""
        return self._exporter is not None

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Give what must run beside the requests."""
        return [] if self._exporter is None else [self._exporter.run()]

    def on_asked(
        self, arrival: RequestArrived, conversation: Conversation, traceparent: str
    ) -> None:
        """Note a request, just before the core is asked about it."""
        trace = parse_sampled(traceparent) if traceparent else None
        self.journal.on_asked(arrival, conversation, trace)

    def on_held(self, conversation: Conversation, seconds: float) -> None:
        """Note how long a request was held."""
        self._telemetry.on_held(conversation.pool, seconds)
        self.journal.on_held(conversation.ticket, seconds)

    def on_returned(self, conversation: Conversation) -> None:
        """Note what has come of a request that had come back."""
        self.journal.on_returned(conversation.ticket, conversation.outcome)

    def on_finished(self, conversation: Conversation, *, own_envoy: bool) -> None:
        """Note the end of a request's stream."""
        self.journal.on_finished(conversation.ticket, conversation, measured=own_envoy)

    def on_protocol_error(self) -> None:
        """Count a message of Envoy's that made no sense."""
        self._telemetry.on_protocol_error()

    def stories(self, request_id: str | None, most: int) -> list[dict[str, Any]]:
        """Tell of the requests of this id, or of the latest, the latest first."""
        most = max(0, min(most, MOST_STORIES))
        kept = self._kept
        found = kept.latest(most) if request_id is None else kept.find(request_id)[:most]
        return [story(record) for record in found]
