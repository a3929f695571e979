"""Where a prompt goes that some endpoints hold: affinity, waiting for it, spreading, forgetting."""

import pytest

from heliostat_routing.commands import Dispatch, Enqueue
from heliostat_routing.events import Outcome, RequestFinished, RequestMeasured
from heliostat_routing.settings import EndpointSettings, PolicyName
from tests.routing.playbook import Playbook, keys, target, targets

RATE = 1280.0
"""Prefills ten blocks of 128 tokens in a second."""


def served(book: Playbook, ticket: int, where: str, **fields: object) -> None:
    """End a request the way a served one ends."""
    book.tell(RequestFinished(ticket))
    book.tell(RequestMeasured(ticket, where, Outcome.SERVED, **fields))  # type: ignore[arg-type]


def test_a_conversation_returns_to_its_endpoint() -> None:
    """Each turn goes where the one before was computed."""
    book = Playbook(4, prefill_tokens_per_second=RATE)
    homes = {}
    for turn in range(1, 5):
        for user in range(4):
            prompt = keys((f"user{user}", 5 * turn))
            where = target(book.arrive(turn * 10 + user, prompt, after=3.0))
            assert where is not None
            assert homes.setdefault(user, where) == where
            served(book, turn * 10 + user, where)


def test_misses_spread_over_idle_endpoints() -> None:
    """Prompts that nobody holds do not all go to one endpoint."""
    book = Playbook(4)
    where = [target(book.arrive(n, keys((f"new{n}", 3)), after=5.0)) for n in range(8)]
    assert len(set(where[:4])) == 4


def test_a_busy_holder_is_worth_waiting_for() -> None:
    """With the prefix held by an endpoint that frees soon, the request waits though one is idle."""
    book = Playbook(2, prefill_tokens_per_second=RATE)
    prompt = keys(("doc", 40))
    home = target(book.arrive(1, prompt))
    assert home is not None
    served(book, 1, home)
    busy = book.arrive(2, (*prompt, *keys(("q1", 5))), after=10.0)
    assert target(busy) == home
    (held,) = book.arrive(3, (*prompt, *keys(("q2", 5))))
    assert isinstance(held, Enqueue)
    assert held.explanation.rule == "hold"
    assert held.explanation.candidates[0].endpoint == home
    assert target(book.tick(0.51)) == home


def test_a_long_wait_is_not_worth_it() -> None:
    """When the holder's wait exceeds the prefill saved, the request goes to the idle endpoint."""
    book = Playbook(2, prefill_tokens_per_second=RATE)
    prompt = keys(("doc", 5))
    home = target(book.arrive(1, prompt))
    assert home is not None
    served(book, 1, home)
    assert target(book.arrive(2, (*prompt, *keys(("long", 40))), after=5.0)) == home
    assert target(book.arrive(3, (*prompt, *keys(("short", 1))))) not in (None, home)


def test_a_freed_endpoint_takes_the_request_with_the_greatest_regret() -> None:
    """Of the requests that wait, the freed endpoint takes the one it holds most of."""
    book = Playbook(2, prefill_tokens_per_second=RATE, age_bound_seconds=60.0)
    first, second = keys(("a", 30)), keys(("b", 30))
    a = target(book.arrive(1, first))
    b = target(book.arrive(2, second))
    book.arrive(3, keys(("new", 10)))
    book.arrive(4, (*second, *keys(("b2", 2))))
    book.arrive(5, (*first, *keys(("a2", 2))))
    gone = targets(book.tick(3.01))
    assert gone[5] == a
    assert gone[4] == b
    assert 3 not in gone, "the miss, which loses least, goes last"


def test_the_age_bound_ends_a_wait() -> None:
    """A request held longer than the age bound takes the first endpoint that is free."""
    book = Playbook(2, prefill_tokens_per_second=RATE, age_bound_seconds=1.0)
    prompt = keys(("doc", 200))
    home = target(book.arrive(1, prompt))
    assert home is not None
    served(book, 1, home)
    assert target(book.arrive(2, (*prompt, *keys(("long", 60))), after=40.0)) == home
    (held,) = book.arrive(3, (*prompt, *keys(("short", 1))))
    assert isinstance(held, Enqueue)
    (dispatch,) = book.tick(1.0)
    assert isinstance(dispatch, Dispatch)
    assert dispatch.explanation.rule == "age-bound"
    assert dispatch.endpoints[0] != home


def test_a_hot_prefix_gets_a_second_home_before_the_first_saturates() -> None:
    """Long answers over one cheap, shared prefix do not pile up on its only holder."""
    book = Playbook(4, prefill_tokens_per_second=10_000)
    prompt = keys(("system", 20))
    where = [target(book.arrive(n, prompt, after=0.5)) for n in range(24)]
    assert len(set(where)) >= 2
    assert max(where.count(endpoint) for endpoint in set(where)) <= 20


def test_the_work_of_a_pick_does_not_grow_with_the_holders() -> None:
    """Of a thousand endpoints that all hold the prompt, a handful is scored."""
    book = Playbook(1000, prefill_tokens_per_second=1e9, policy=PolicyName.ROUND_ROBIN)
    prompt = keys(("hot", 4))
    for ticket in range(1000):
        book.arrive(ticket, prompt)
    book.settings = type(book.settings)(prefill_tokens_per_second=1e9)
    book.update(*(EndpointSettings(f"e{number}") for number in range(1000)))
    (dispatch,) = book.arrive(2000, prompt, after=1.0)
    assert isinstance(dispatch, Dispatch)
    assert dispatch.explanation.eligible == 1000
    assert len(dispatch.explanation.candidates) <= 12
    assert dispatch.explanation.candidates[0].uncached_tokens == 0


def indexed_tokens(book: Playbook, endpoint: str) -> float:
    """What the router thinks that the endpoint holds."""
    (view,) = [e for e in book.router.views(book.now)[0].endpoints if e.address == endpoint]
    return view.indexed_tokens


def test_the_index_is_bounded_by_what_the_engine_can_hold() -> None:
    """The engine's own report of its KV capacity bounds what it is thought to hold."""
    book = Playbook(1)
    book.scrape("e0", kv_capacity_tokens=2560)
    for number in range(5):
        book.arrive(number, keys((f"p{number}", 8)), after=5.0, max_output_tokens=1)
        served(book, number, "e0")
        assert indexed_tokens(book, "e0") <= 2560


def test_a_restart_empties_the_index() -> None:
    """Counters that fall mean a new process: nothing of the old one's cache is left."""
    book = Playbook(1)
    book.scrape("e0", finished_requests=10)
    book.arrive(1, keys(("doc", 8)))
    assert indexed_tokens(book, "e0") > 0
    book.scrape("e0", after=1.0, finished_requests=0)
    assert indexed_tokens(book, "e0") == 0


def test_a_restart_is_seen_where_no_counter_falls() -> None:
    """An engine that began anew before it was scraped with any count tells it by its start."""
    book = Playbook(1)
    book.scrape("e0", started_milliseconds=1000)
    book.arrive(1, keys(("doc", 8)))
    book.scrape("e0", after=1.0, started_milliseconds=1000)
    assert indexed_tokens(book, "e0") > 0
    book.scrape("e0", after=1.0, started_milliseconds=2000)
    assert indexed_tokens(book, "e0") == 0


def test_an_endpoint_that_goes_takes_its_entries_along() -> None:
    """A removed endpoint comes back empty."""
    book = Playbook(2)
    book.arrive(1, keys(("doc", 8)))
    served(book, 1, "e0")
    book.update(EndpointSettings("e1"))
    book.update(EndpointSettings("e0"), EndpointSettings("e1"))
    assert indexed_tokens(book, "e0") == 0


def test_a_refused_prompt_leaves_the_index() -> None:
    """What the engine answered 4xx was never computed, so it is held nowhere."""
    book = Playbook(1)
    book.arrive(1, keys(("too long", 8)))
    book.tell(RequestFinished(1))
    book.tell(RequestMeasured(1, "e0", Outcome.REFUSED))
    assert indexed_tokens(book, "e0") == 0


def test_a_shortfall_moves_the_watermark_and_keeps_what_was_recomputed() -> None:
    """Blocks older than the first one missing are absent too; the request's own are there."""
    book = Playbook(1, prefill_tokens_per_second=1e5)
    old, doc, young = keys(("old", 8)), keys(("doc", 8)), keys(("young", 8))
    for ticket, prompt in enumerate((old, doc, young)):
        book.arrive(ticket, prompt, after=2.0)
        served(book, ticket, "e0")
    book.arrive(3, doc, after=2.0)
    served(book, 3, "e0", prompt_tokens=1024, cached_tokens=0)

    def cached(ticket: int, prompt: tuple[int, ...]) -> float:
        (dispatch,) = book.arrive(ticket, prompt, after=2.0)
        assert isinstance(dispatch, Dispatch)
        return dispatch.explanation.candidates[0].cached_tokens

    assert cached(4, doc) > 900
    assert cached(5, young) > 900
    assert cached(6, old) == 0


def test_hits_that_the_counters_do_not_show_are_forgotten() -> None:
    """Without usage in the answers, the engine's hit counter tells what was not there."""
    book = Playbook(1, prefill_tokens_per_second=1e5)
    book.scrape("e0")
    prompt = keys(("doc", 20))
    for ticket in range(4):
        book.arrive(ticket, prompt, after=2.0)
        book.tell(RequestFinished(ticket), after=1.0)
        book.tell(RequestMeasured(ticket, "e0", Outcome.SERVED, 0.01))
    before = indexed_tokens(book, "e0")
    book.scrape("e0", finished_requests=4, prefix_query_tokens=10_000, prefix_hit_tokens=0)
    assert indexed_tokens(book, "e0") < before


@pytest.mark.parametrize(
    ("usage", "counter"),
    [
        ({"prompt_tokens": 2560, "cached_tokens": 2560, "output_tokens": 5}, None),
        ({"prompt_tokens": 2560, "cached_tokens": 2560, "output_tokens": 5}, 7680),
        ({}, 7680),
        ({}, None),
    ],
)
def test_hits_that_are_there_are_not_forgotten(usage: dict[str, int], counter: int | None) -> None:
    """Neither an engine without the counter nor answers with usage cost the index anything."""
    book = Playbook(1, prefill_tokens_per_second=1e5)
    book.scrape("e0", prefix_hit_tokens=None if counter is None else 0)
    prompt = keys(("doc", 20))
    for ticket in range(4):
        book.arrive(ticket, prompt, after=2.0)
        served(book, ticket, "e0", ttft_seconds=0.01, **usage)
    book.arrive(9, prompt, after=2.0)
    book.tell(RequestFinished(9), after=0.1)
    book.tell(RequestMeasured(9, "e0", Outcome.CLIENT_ABORTED))
    before = indexed_tokens(book, "e0")
    book.scrape("e0", finished_requests=4, prefix_hit_tokens=counter)
    assert indexed_tokens(book, "e0") == before


def test_bytes_per_token_is_learned() -> None:
    """Usage reports move the estimate to the pool's real ratio."""
    book = Playbook(1)
    for ticket in range(200):
        book.arrive(ticket, keys((f"p{ticket}", 4)), after=1.0)
        served(book, ticket, "e0", prompt_tokens=1024, cached_tokens=0)
    assert abs(book.router.views(book.now)[0].bytes_per_token - 2.0) < 0.1


def test_the_prefill_rate_is_learned() -> None:
    """Times to first token move the rate from what was assumed to what is."""
    book = Playbook(1, prefill_tokens_per_second=1000.0)
    for ticket in range(60):
        blocks = 4 + ticket % 7 * 8
        book.arrive(ticket, keys((f"p{ticket}", blocks)), after=60.0)
        tokens = blocks * 128
        ttft = 0.03 + tokens / 20_000
        served(book, ticket, "e0", prompt_tokens=tokens, cached_tokens=0, ttft_seconds=ttft)
    (endpoint,) = book.router.views(book.now)[0].endpoints
    assert 15_000 < endpoint.prefill_tokens_per_second < 25_000
