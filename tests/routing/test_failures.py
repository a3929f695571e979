"""Endpoints that fail, hang, lie or go silent are not taken for idle, nor healthy ones for dead."""

import pytest

from heliostat_routing.events import (
    AttemptFailed,
    AttemptStarted,
    Outcome,
    RequestFinished,
    RequestMeasured,
    ScrapeFailed,
)
from tests.routing.playbook import Playbook, keys, target, targets
from tests.routing.test_admission import RATE, other


def test_failing_fast_does_not_look_idle() -> None:
    """A request that ends before its prefill could have been done frees nothing by itself."""
    book = Playbook(1, prefill_tokens_per_second=RATE)
    book.arrive(1, other(1))
    book.tell(RequestFinished(1), after=0.01)
    assert target(book.arrive(2, other(2))) is None


def test_a_measured_success_frees_at_once() -> None:
    """The access log's word that tokens came takes the rest of the prediction back."""
    book = Playbook(1, prefill_tokens_per_second=RATE)
    book.arrive(1, other(1))
    book.arrive(2, other(2))
    book.tell(RequestFinished(1), after=0.1)
    assert (
        target(book.tell(RequestMeasured(1, "e0", Outcome.SERVED, 0.05, output_tokens=9))) == "e0"
    )


def test_repeated_failures_open_the_breaker_and_a_probe_closes_it() -> None:
    """Two failures in a row keep requests away; after a pause one is let through to see."""
    book = Playbook(2, prefill_tokens_per_second=1e6)
    for ticket in (1, 2):
        book.arrive(ticket, after=0.1)
        book.tell(AttemptFailed(ticket, "e0"))
        book.tell(AttemptStarted(ticket, "e1"))
    assert [target(book.arrive(n, after=0.1)) for n in range(3, 8)] == ["e1"] * 5
    picked = [target(book.arrive(n, after=0.5)) for n in range(8, 12)]
    assert picked.count("e0") == 1, "exactly one request tries it out"
    probe = 8 + picked.index("e0")
    book.tell(RequestMeasured(probe, "e0", Outcome.SERVED, 0.01))
    assert "e0" in [target(book.arrive(n, after=0.1)) for n in range(12, 16)]


def test_a_failed_probe_doubles_the_pause() -> None:
    """An endpoint that fails its probe is left alone for twice as long."""
    book = Playbook(1, prefill_tokens_per_second=1e6, queue_timeout_seconds=100.0)
    for ticket in (1, 2):
        book.arrive(ticket, after=0.1)
        book.tell(AttemptFailed(ticket, "e0"))
        book.tell(RequestFinished(ticket))
    book.arrive(3)
    assert target(book.tick(1.001)) == "e0"
    book.tell(AttemptFailed(3, "e0"))
    book.arrive(4)
    assert target(book.tick(1.9)) is None
    assert target(book.tick(0.2)) == "e0"


def test_an_answer_without_output_is_a_failure() -> None:
    """Requests that an endpoint swallows open its breaker, whatever status it answered with."""
    book = Playbook(2, prefill_tokens_per_second=1e6)
    for ticket in range(1, 9):
        where = target(book.arrive(ticket, after=0.05))
        outcome = Outcome.ENGINE_FAILED if where == "e0" else Outcome.SERVED
        book.tell(RequestFinished(ticket))
        book.tell(RequestMeasured(ticket, where, outcome, 0.01))
    breakers = {e.address: e.breaker for e in book.router.views(book.now)[0].endpoints}
    assert breakers == {"e0": "open", "e1": "closed"}


@pytest.mark.parametrize("silent", [False, True])
def test_no_progress_is_not_idleness(silent: bool) -> None:
    """An engine with work in flight whose counters stand still, or that is silent, gets no more."""
    book = Playbook(2, prefill_tokens_per_second=1e6)
    book.scrape("e0")
    book.scrape("e1")
    stuck = target(book.arrive(1, after=0.1))
    assert stuck is not None
    for _ in range(14):
        if silent:
            book.tell(ScrapeFailed(stuck), after=1.0)
        else:
            book.scrape(stuck, after=1.0, running_requests=1)
    assert (
        stuck not in targets([c for n in range(2, 6) for c in book.arrive(n, after=0.1)]).values()
    )
    book.scrape(stuck, running_requests=1, generation_tokens=5)
    assert stuck in targets([c for n in range(6, 12) for c in book.arrive(n, after=0.1)]).values()


def opened(book: Playbook) -> None:
    """Open the breaker of e0."""
    for ticket in (1, 2):
        book.arrive(ticket, after=0.1)
        book.tell(AttemptFailed(ticket, "e0"))
        book.tell(RequestFinished(ticket))


def probe(book: Playbook, ticket: int) -> None:
    """Send the one request that tries e0 out."""
    book.tick(1.1)
    assert target(book.arrive(ticket)) == "e0"


@pytest.mark.parametrize("served_by", ["e0", "e1", "elsewhere"])
def test_a_probe_is_never_lost(served_by: str) -> None:
    """However its logs come, or do not, the endpoint is tried again."""
    book = Playbook(1, prefill_tokens_per_second=1e6)
    opened(book)
    probe(book, 3)
    book.tell(RequestFinished(3))
    book.tell(RequestMeasured(3, served_by, Outcome.CLIENT_ABORTED))
    assert target(book.arrive(4, after=0.1)) == "e0"
    book.tell(RequestFinished(4))
    book.arrive(5, after=1.0)
    assert target(book.tick(10.0)) == "e0", "a probe without a word counts for so long"


def test_a_failure_that_is_told_after_the_end_still_counts() -> None:
    """The log of an attempt may come after the log of its request."""
    book = Playbook(2, prefill_tokens_per_second=1e6)
    for ticket in (1, 2):
        book.arrive(ticket, after=0.1)
        book.tell(RequestFinished(ticket))
        book.tell(RequestMeasured(ticket, "e1", Outcome.SERVED, 0.01, output_tokens=5))
        book.tell(AttemptFailed(ticket, "e0"), after=0.05)
    assert "e0" not in targets([c for n in range(3, 7) for c in book.arrive(n, after=0.1)]).values()


def test_a_first_token_of_the_probe_closes_the_breaker() -> None:
    """A long stream that has begun to flow need not end for the endpoint to be trusted again."""
    book = Playbook(1, prefill_tokens_per_second=1e6)
    book.scrape("e0", first_tokens=0)
    opened(book)
    probe(book, 3)
    book.scrape("e0", after=0.2, running_requests=1, first_tokens=1)
    assert [target(book.arrive(n, after=0.1)) for n in range(4, 8)] == ["e0"] * 4


def test_a_hung_engine_is_not_idle_once_its_clients_have_left() -> None:
    """With nothing in flight and no word from the engine, at most a probe goes there."""
    book = Playbook(2, prefill_tokens_per_second=1e6)
    book.scrape("e0")
    book.scrape("e1")
    stuck = target(book.arrive(1, after=0.1))
    assert stuck is not None
    for _ in range(12):
        book.tell(ScrapeFailed(stuck), after=1.0)
    book.tell(RequestFinished(1))
    book.tell(RequestMeasured(1, stuck, Outcome.CLIENT_ABORTED))
    sent = []
    for ticket in range(2, 42):
        where = target(book.arrive(ticket, after=0.25))
        sent.append(where)
        book.tell(ScrapeFailed(stuck))
        book.tell(RequestFinished(ticket), after=0.05)
        outcome = Outcome.CLIENT_ABORTED if where == stuck else Outcome.SERVED
        book.tell(RequestMeasured(ticket, where, outcome, output_tokens=5))
    assert sent.count(stuck) <= 4


def test_new_dispatches_do_not_excuse_a_hung_engine() -> None:
    """Sending more to an engine that stands still does not lengthen the patience with it."""
    book = Playbook(1, policy="round-robin", prefill_tokens_per_second=RATE)
    book.scrape("e0")
    sent = [target(book.arrive(0, other(0)))]
    for ticket in range(1, 40):
        sent.append(target(book.arrive(ticket, other(ticket), after=1.0)))
        book.scrape("e0", running_requests=1)
    assert sent.index(None) <= 14


def test_a_long_prefill_is_no_silence() -> None:
    """An engine that computes one long prompt shows nothing for as long as that takes."""
    book = Playbook(1, prefill_tokens_per_second=RATE)
    book.scrape("e0")
    book.arrive(1, keys(("long", 200)))
    for _ in range(40):
        book.scrape("e0", after=1.0, running_requests=1)
    (endpoint,) = book.router.views(book.now)[0].endpoints
    assert endpoint.breaker == "closed"
    for _ in range(15):
        book.scrape("e0", after=1.0, running_requests=1)
    (endpoint,) = book.router.views(book.now)[0].endpoints
    assert endpoint.breaker != "closed"


def test_an_engine_that_serves_is_alive_whatever_its_metrics_do() -> None:
    """Answers prove that an engine works, also when its metrics can no longer be read."""
    book = Playbook(1, prefill_tokens_per_second=1e6)
    book.scrape("e0")
    for ticket in range(100):
        assert target(book.arrive(ticket, after=0.5)) == "e0"
        book.tell(ScrapeFailed("e0"))
        book.tell(RequestFinished(ticket), after=0.1)
        book.tell(RequestMeasured(ticket, "e0", Outcome.SERVED, 0.05, output_tokens=5))


def test_one_failed_scrape_takes_no_idle_endpoint_out() -> None:
    """However seldom an idle endpoint is scraped, its silence begins with the first failure."""
    book = Playbook(1)
    book.scrape("e0")
    book.tell(ScrapeFailed("e0"), after=80.0)
    assert book.router.views(book.now)[0].endpoints[0].available
    book.tell(ScrapeFailed("e0"), after=11.0)
    assert not book.router.views(book.now)[0].endpoints[0].available


def test_without_usage_a_fast_answer_frees_nothing() -> None:
    """An answer that may be an error in a stream's clothes leaves the clock as it is."""
    book = Playbook(1, prefill_tokens_per_second=RATE)
    book.arrive(1, other(1))
    book.tell(RequestFinished(1), after=0.01)
    book.tell(RequestMeasured(1, "e0", Outcome.SERVED, 0.002))
    assert target(book.arrive(2, other(2))) is None


@pytest.mark.parametrize(
    "lie",
    [
        {"prompt_tokens": 10**12, "cached_tokens": 0, "output_tokens": 5},
        {"prompt_tokens": 1280, "cached_tokens": 0, "output_tokens": 5 * 10**8},
        {"prompt_tokens": 1, "cached_tokens": 10**9, "output_tokens": 1},
    ],
)
def test_impossible_usage_teaches_nothing(lie: dict[str, int]) -> None:
    """Counts that cannot be are passed over, and cost no time."""
    book = Playbook(1)
    before = book.router.views(book.now)[0]
    book.arrive(1, other(1))
    book.tell(RequestFinished(1), after=1.0)
    book.tell(RequestMeasured(1, "e0", Outcome.SERVED, 0.1, 1.0, **lie))
    after = book.router.views(book.now)[0]
    assert abs(after.bytes_per_token - before.bytes_per_token) < 0.5
    assert after.endpoints[0].indexed_tokens < 3000
    assert 4000 < after.endpoints[0].prefill_tokens_per_second < 16_000


def test_an_image_does_not_teach_bytes_per_token() -> None:
    """Megabytes of base64 that are a thousand tokens say nothing about text, and block nobody."""
    book = Playbook(1)
    book.scrape("e0", kv_capacity_tokens=100_000)
    book.arrive(1, keys(("image", 20_000)))
    book.tell(RequestFinished(1), after=1.0)
    book.tell(RequestMeasured(1, "e0", Outcome.SERVED, 0.1, 1.0, 1700, 0, 50))
    assert book.router.views(book.now)[0].bytes_per_token < 4.5
    assert target(book.arrive(2, other(2), after=1.0)) == "e0"


def test_silent_metrics_cost_no_memory() -> None:
    """What was sent and has ended is not kept for a scrape that does not come."""
    book = Playbook(1, prefill_tokens_per_second=1e6)
    book.scrape("e0")
    endpoint = book.router._books.fleet.by_address["e0"]
    for ticket in range(500):
        book.arrive(ticket, after=0.1)
        book.tell(RequestFinished(ticket))
        book.tell(RequestMeasured(ticket, "e0", Outcome.SERVED, 0.01, output_tokens=3))
    book.tick(60.0)
    assert len(endpoint._recent) + len(endpoint._unprefilled) <= 1
    assert not book.router._unmeasured
    assert not book.router._settled


def test_a_restart_frees_the_clock() -> None:
    """What a dead process had to do, its successor has not."""
    book = Playbook(1, prefill_tokens_per_second=RATE)
    book.scrape("e0", finished_requests=10)
    book.arrive(1, keys(("long", 100)))
    assert target(book.arrive(2, other(2))) is None
    assert target(book.scrape("e0", after=0.2, finished_requests=0)) == "e0"


def test_the_clock_stands_still_while_requests_wait_in_the_engine() -> None:
    """Time that the engine spends on others is not counted against the prefill of ours."""
    book = Playbook(1, prefill_tokens_per_second=RATE)
    book.arrive(1, other(1))
    book.scrape("e0", after=0.5, running_requests=3, waiting_requests=2)
    book.scrape("e0", after=4.0, running_requests=3, waiting_requests=0)
    assert target(book.arrive(2, other(2))) is None
    assert target(book.tick(0.45)) is None
    assert target(book.tick(0.1)) == "e0"
