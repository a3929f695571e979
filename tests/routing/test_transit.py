"""What is under way to a region: settled by receipts, by coming back, or by time."""

from hypothesis import given, settings
from hypothesis import strategies as st

from heliostat_routing.transit import LOST_SECONDS, Transit


def under_way(tickets: int) -> Transit:
    """So many requests were sent a moment after each other."""
    transit = Transit()
    for ticket in range(tickets):
        transit.send(ticket, "p", ticket * 0.01)
    return transit


def test_receipts_settle_the_oldest() -> None:
    """So many are under way no more, of whichever pool they are."""
    transit = Transit()
    for ticket, pool in enumerate("ppq"):
        transit.send(ticket, pool, 0.0)
    transit.receive(2, 0.1)
    assert (transit.count("p", 0.1), transit.count("q", 0.1)) == (0, 1)


def test_more_receipts_than_requests_settle_what_there_is() -> None:
    """A count beyond all that was sent makes nothing negative, and is no credit for later ones."""
    transit = under_way(2)
    transit.receive(10**12, 0.1)
    transit.send(9, "p", 0.2)
    assert transit.count("p", 0.2) == 1


def test_the_receipt_of_one_that_has_ended_settles_no_younger_one() -> None:
    """What ends before it is counted is counted all the same."""
    transit = under_way(2)
    transit.leave(0, 0.1)
    assert transit.count("p", 0.1) == 1
    transit.receive(1, 0.2)
    assert transit.count("p", 0.2) == 1
    transit.receive(1, 0.3)
    assert transit.count("p", 0.3) == 0


def test_a_late_receipt_settles_no_younger_one() -> None:
    """A request that was given up as lost may come late: its receipt is its own."""
    transit = under_way(1)
    later = LOST_SECONDS + 0.1
    assert transit.count("p", later) == 0
    transit.send(1, "p", later)
    transit.receive(1, later + 0.1)
    assert transit.count("p", later + 0.1) == 1


def test_a_receipt_that_never_comes_is_not_waited_for_for_ever() -> None:
    """After a while a receipt settles the request that it is of."""
    transit = under_way(1)
    transit.leave(0, 0.1)
    later = 0.1 + LOST_SECONDS + 0.1
    transit.send(1, "p", later)
    transit.receive(1, later)
    assert transit.count("p", later) == 0


def test_one_that_ends_after_its_receipt_changes_nothing() -> None:
    """It has been settled already."""
    transit = under_way(2)
    transit.receive(1, 0.1)
    transit.leave(0, 0.2)
    transit.receive(1, 0.3)
    assert transit.total(0.3) == 0


@settings(deadline=None, derandomize=True)
@given(st.data(), st.lists(st.sampled_from(["send", "arrive", "echo", "end"]), max_size=80))
def test_while_none_is_lost_the_count_is_what_no_state_has_told(
    data: st.DataObject, steps: list[str]
) -> None:
    """Sent, arrived, echoed and ended in any order: at most what is open and not echoed is counted.

    With all echoed nothing is, and no echo settles more than it tells of.
    """
    transit = Transit()
    sent: list[int] = []
    arrived: list[int] = []
    ended: set[int] = set()
    echoed = 0
    for step in steps:
        match step:
            case "send":
                sent.append(len(sent))
                transit.send(sent[-1], "p", 0.0)
            case "arrive" if len(arrived) < len(sent):
                arrived.append(data.draw(st.sampled_from(sorted({*sent} - {*arrived}))))
            case "echo":
                transit.receive(len(arrived) - echoed, 0.0)
                echoed = len(arrived)
            case "end" if len(ended) < len(sent):
                ticket = data.draw(st.sampled_from(sorted({*sent} - ended)))
                ended.add(ticket)
                transit.leave(ticket, 0.0)
        count = transit.total(0.0)
        assert len(sent) - echoed - len(ended) <= count <= len(sent) - max(echoed, len(ended))
        assert count == transit.count("p", 0.0)
    transit.receive(len(sent) - echoed, 0.0)
    assert transit.total(0.0) == 0
