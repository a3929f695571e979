"""How the journal joins what is told of a request, in whatever order it comes."""

import itertools

import pytest

from heliostat_extproc.conversation import Conversation, Sender
from heliostat_extproc.conversation import Outcome as Answered
from heliostat_extproc.errors import Reason
from heliostat_extproc.observing.journal import LINGER_SECONDS, PATIENCE_SECONDS, Journal
from heliostat_extproc.observing.kept_requests import KeepSettings, KeptRequests
from heliostat_extproc.observing.request_record import Ending, RequestRecord
from heliostat_extproc.observing.timing import Timing
from heliostat_extproc.observing.trace_context import parse_sampled
from heliostat_routing.commands import Dispatch
from heliostat_routing.events import (
    AttemptFailed,
    Outcome,
    RequestArrived,
    RequestFinished,
    RequestMeasured,
)
from heliostat_routing.explanation import Explanation

WHY = Explanation("heliostat", "least-cost", "a:1", 1)
TIMING = Timing(0.5, 3.0, 200)


class Desk:
    """A journal on a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[RequestRecord] = []
        self.journal = Journal(lambda: self.now, [self.told.append])

    def ask(self, ticket: int = 1, outcome: Answered | Reason = Answered.DISPATCHED):
        conversation = Conversation(ticket, Sender())
        conversation.pool, conversation.outcome = "chat", outcome
        arrival = RequestArrived(ticket, "chat", (), 10)
        self.journal.on_asked(arrival, conversation, None)
        if outcome is Answered.DISPATCHED:
            self.journal.record(self.now, arrival, [Dispatch(ticket, ("a:1",), WHY)])
        return conversation

    def sweep_after(self, seconds: float) -> None:
        self.now += seconds
        self.journal.sweep()


def measured(ticket: int = 1, outcome: Outcome = Outcome.SERVED, **more: float) -> RequestMeasured:
    return RequestMeasured(ticket, "a:1", outcome, ttft_seconds=0.25, **more)


@pytest.mark.parametrize("order", itertools.permutations(("stream", "entry", "attempt")))
def test_the_order_of_what_is_told_does_not_matter(order: tuple[str, ...]) -> None:
    """A request is told once, when all is known, with the attempt that failed."""
    desk = Desk()
    conversation = desk.ask()
    for what in order:
        if what == "stream":
            desk.journal.on_finished(1, conversation, measured=True)
        elif what == "entry":
            desk.journal.on_measured(measured(), TIMING)
        else:
            desk.journal.record(desk.now, AttemptFailed(1, "b:1"), ())
    assert desk.told == []
    desk.sweep_after(LINGER_SECONDS)
    (record,) = desk.told
    assert (record.ending, record.failed_attempts, record.retries) == (Ending.SERVED, 1, 1)
    assert record.ttft_seconds == pytest.approx(0.75)
    assert record.total_seconds == 3.0
    assert desk.journal.unfinished == ()


def test_a_request_that_the_log_says_nothing_of_is_told_without_it() -> None:
    """After the time that an entry may take: nobody knows how it ended."""
    desk = Desk()
    desk.journal.on_finished(1, desk.ask(), measured=True)
    desk.sweep_after(PATIENCE_SECONDS / 2)
    assert desk.told == []
    desk.sweep_after(PATIENCE_SECONDS)
    assert [record.ending for record in desk.told] == [Ending.DISPATCHED]


@pytest.mark.parametrize(
    ("outcome", "ending"),
    [
        (Reason.QUEUE_FULL, Reason.QUEUE_FULL),
        (Answered.CLIENT_LEFT, Ending.CLIENT_LEFT),
    ],
)
def test_what_was_not_sent_is_told_at_once(
    outcome: Answered | Reason, ending: Ending | Reason
) -> None:
    """No entry of it has a ticket."""
    desk = Desk()
    desk.journal.on_finished(1, desk.ask(outcome=outcome), measured=True)
    assert [record.ending for record in desk.told] == [ending]


def test_what_another_gateway_sends_is_told_at_once() -> None:
    """Its log goes elsewhere."""
    desk = Desk()
    desk.journal.on_finished(1, desk.ask(), measured=False)
    assert [record.ending for record in desk.told] == [Ending.DISPATCHED]


def test_a_request_that_is_refused_after_it_came_back_has_that_reason() -> None:
    """The stream that it came on only knows that it was sent."""
    desk = Desk()
    conversation = desk.ask()
    desk.journal.on_returned(1, Reason.NO_ENDPOINTS)
    desk.journal.on_finished(1, conversation, measured=True)
    desk.sweep_after(LINGER_SECONDS)
    assert [record.ending for record in desk.told] == [Reason.NO_ENDPOINTS]


def test_a_request_of_nobody_is_ignored() -> None:
    """Tickets of a former router come in over the log."""
    desk = Desk()
    desk.journal.on_measured(measured(7), TIMING)
    desk.journal.record(desk.now, RequestFinished(7), [Dispatch(7, ("a:1",), WHY)])
    desk.journal.on_returned(7, Reason.NO_ENDPOINTS)
    assert desk.journal.unfinished == ()


def test_time_per_token_is_that_between_the_first_and_the_last() -> None:
    """One token has no time between two."""
    record = RequestRecord(1, "id", 0.0, 0.0)
    record.measured = measured(duration_seconds=1.25, output_tokens=5)
    assert record.tpot_seconds == pytest.approx(0.25)
    record.measured = measured(duration_seconds=1.25, output_tokens=1)
    assert record.tpot_seconds is None


def test_what_is_kept_is_bounded_and_the_unusual_outlives_the_usual() -> None:
    """A flood of ordinary requests pushes no failure out."""
    kept = KeptRequests(KeepSettings(requests=5, every=2), lambda: ())
    failed = RequestRecord(0, "failed", 0.0, 0.0, ending=Ending.ENGINE_FAILED)
    kept.tell(failed)
    for number in range(1, 101):
        kept.tell(RequestRecord(number, f"id-{number}", 0.0, number, ending=Ending.SERVED))
    assert kept.find("failed") == [failed]
    assert [record.ticket for record in kept.latest(100)] == [100, 98, 96, 94, 92, 0]
    assert kept.find("id-99") == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        f"00-{'0' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'0' * 16}-01",
        f"00-{'1' * 32}-{'1' * 16}-00",
        f"00-{'1' * 32}-{'1' * 16}-01-more",
        f"ff-{'1' * 32}-{'1' * 16}-01",
        f"00-{'A' * 32}-{'1' * 16}-01",
    ],
)
def test_what_is_no_recorded_trace_is_none(text: str) -> None:
    """By the rules of the W3C: lower case, no zeros, the sampled flag."""
    assert parse_sampled(text) is None


def test_a_later_version_of_a_trace_context_is_read() -> None:
    """It may say more than this one knows."""
    context = parse_sampled(f"01-{'1' * 32}-{'2' * 16}-03-more")
    assert context is not None
    assert (context.trace_id.hex(), context.span_id.hex()) == ("1" * 32, "2" * 16)
