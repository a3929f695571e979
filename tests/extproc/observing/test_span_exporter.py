"""Spans that wait for a collector are bounded, and those that are lost are counted."""

from heliostat_extproc.observing.request_record import RequestRecord, Step
from heliostat_extproc.observing.span_exporter import MOST_WAITING, SpanExporter
from heliostat_extproc.observing.spans import decision_spans
from heliostat_extproc.observing.trace_context import TraceContext
from heliostat_extproc.observing.trace_settings import TraceSettings
from heliostat_routing.commands import Reject, RejectReason
from heliostat_routing.events import ForwardRefused


def test_each_span_without_room_is_counted() -> None:
    """A request that was decided twice has two; one whose trace nobody records has none."""
    rejected = Reject(1, RejectReason.NO_ENDPOINTS, 1.0)
    steps: list[tuple[float, Step]] = [
        (1.0, rejected),
        (2.0, ForwardRefused(1, "eu")),
        (3.0, rejected),
    ]
    record = RequestRecord(1, "id", 0.0, 0.0, trace=TraceContext(b"t" * 16, b"s" * 8), steps=steps)
    exporter = SpanExporter(TraceSettings("127.0.0.1:1"), "")
    for _ in range(MOST_WAITING + 3):
        exporter.tell(record)
    exporter.tell(RequestRecord(2, "id", 0.0, 0.0, steps=steps))
    assert exporter.lost_spans == 3 * len(list(decision_spans(record))) == 6
