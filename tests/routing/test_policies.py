"""The reference policies keep to their rules, and noise does not sway Heliostat's."""

import itertools
from collections import Counter

from heliostat_routing.commands import Dispatch, Enqueue
from heliostat_routing.events import Outcome, PoolRemoved, RequestFinished, RequestMeasured
from heliostat_routing.explanation import Verdict
from heliostat_routing.fleet import load_bucket
from heliostat_routing.settings import EndpointPhase, EndpointSettings, PolicyName
from tests.routing.playbook import Playbook, keys, target, targets


def test_round_robin_takes_turns_and_passes_over_the_draining() -> None:
    """Each ready endpoint in turn, whatever is in flight."""
    endpoints = [EndpointSettings(f"e{number}") for number in range(4)]
    endpoints[2] = EndpointSettings("e2", EndpointPhase.DRAINING)
    book = Playbook(endpoints, policy=PolicyName.ROUND_ROBIN)
    assert [target(book.arrive(n)) for n in range(6)] == ["e0", "e1", "e3"] * 2


def test_least_inflight_fills_the_emptiest() -> None:
    """The endpoint with the fewest open streams serves next."""
    book = Playbook(3, policy=PolicyName.LEAST_INFLIGHT)
    first = [target(book.arrive(n)) for n in range(6)]
    assert Counter(first) == {"e0": 2, "e1": 2, "e2": 2}
    ended = first.index("e1")
    book.tell(RequestFinished(ended))
    assert target(book.arrive(10)) == "e1"


def test_consistent_hash_keeps_keys_where_they_were() -> None:
    """A key always goes to the same endpoint; losing one moves only its own keys."""
    book = Playbook(5, policy=PolicyName.CONSISTENT_HASH)
    spread = [hash_key * (2**64 // 400) for hash_key in range(400)]
    before = [target(book.arrive(n, affinity_key=key)) for n, key in enumerate(spread)]
    assert len(set(before)) == 5
    book.update(*(EndpointSettings(f"e{number}") for number in (0, 1, 2, 4)))
    after = [target(book.arrive(1000 + n, affinity_key=key)) for n, key in enumerate(spread)]
    moved = [old for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {"e3"}
    assert before.count("e3") == len(moved)


def test_reference_policies_send_at_once() -> None:
    """They do not know pending requests: everything goes out immediately, with its fallbacks."""
    for policy in (PolicyName.ROUND_ROBIN, PolicyName.LEAST_INFLIGHT, PolicyName.CONSISTENT_HASH):
        book = Playbook(3, policy=policy, prefill_tokens_per_second=1.0, fallbacks=1)
        for number in range(20):
            (dispatch,) = book.arrive(number, keys((f"p{number}", 9)))
            assert isinstance(dispatch, Dispatch)
            assert len(dispatch.endpoints) == 2
            assert dispatch.explanation.rule == policy


def test_noise_in_measured_rates_attracts_no_load() -> None:
    """Of two endpoints that cost as good as the same, misses go to both."""
    book = Playbook(2, prefill_tokens_per_second=1e6)
    served: Counter[str | None] = Counter()
    for ticket in range(40):
        where = target(book.arrive(ticket, keys((f"p{ticket}", 1)), after=1.0))
        served[where] += 1
        book.tell(RequestFinished(ticket))
        ttft = 0.010 if where == "e0" else 0.012
        book.tell(RequestMeasured(ticket, where, Outcome.SERVED, ttft, 1.0, 128, 0, 10))
    assert min(served["e0"], served["e1"]) >= 15


def test_a_slow_endpoint_gets_less() -> None:
    """An endpoint whose prefill is measured at half the speed is sent less of the long prompts."""
    book = Playbook(2, prefill_tokens_per_second=10_000.0)
    served: Counter[str | None] = Counter()
    for ticket in range(120):
        blocks = 10 + ticket % 5 * 20
        where = target(book.arrive(ticket, keys((f"p{ticket}", blocks)), after=2.0))
        served[where] += 1
        tokens = blocks * 128
        rate = 10_000 if where == "e0" else 2_000
        book.tell(RequestFinished(ticket))
        measured = RequestMeasured(
            ticket, where, Outcome.SERVED, 0.02 + tokens / rate, 3.0, tokens, 0, 10
        )
        book.tell(measured)
    assert served["e0"] > 2 * served["e1"]


def test_the_ring_of_a_pool_that_comes_back_is_built_anew() -> None:
    """A pool removed and added with other endpoints spreads over all of them."""
    book = Playbook(2, policy=PolicyName.CONSISTENT_HASH)
    book.arrive(0, affinity_key=1)
    book.tell(RequestFinished(0))
    book.tell(PoolRemoved("p"))
    book.update(*(EndpointSettings(f"f{number}") for number in range(6)))
    step = 2**64 // 300
    where = {target(book.arrive(n, affinity_key=n * step)) for n in range(1, 300)}
    assert where == {f"f{number}" for number in range(6)}


def test_one_hot_prefix_uses_both_endpoints() -> None:
    """Requests held for the holder count as its wait, so the other endpoint does not stay idle."""
    book = Playbook(2, prefill_tokens_per_second=1280.0, age_bound_seconds=60.0)
    prompt = keys(("hot", 10))
    book.arrive(0, prompt)
    sent: Counter[str] = Counter()
    for ticket in range(1, 61):
        sent.update(targets(book.arrive(ticket, (*prompt, *keys((f"q{ticket}", 4))))).values())
    for _ in range(400):
        sent.update(targets(book.tick(0.05)).values())
    assert sum(sent.values()) == 60
    assert min(sent["e0"], sent["e1"]) >= 24


def test_every_candidate_is_told_why_it_lost() -> None:
    """The explanation names the winner, and for each other candidate what it lacked."""
    book = Playbook(3, prefill_tokens_per_second=1280.0)
    prompt = keys(("doc", 20))
    home = target(book.arrive(1, prompt))
    book.tell(RequestFinished(1), after=30.0)
    (won,) = book.arrive(2, (*prompt, *keys(("a", 4))))
    assert isinstance(won, Dispatch)
    verdicts = {c.endpoint: won.explanation.verdict(c) for c in won.explanation.candidates}
    assert verdicts.pop(str(home)) is Verdict.WON
    assert set(verdicts.values()) == {Verdict.COSTLIER}
    (held,) = book.arrive(3, (*prompt, *keys(("b", 4))))
    assert isinstance(held, Enqueue)
    first = held.explanation.candidates[0]
    assert (first.endpoint, held.explanation.verdict(first)) == (home, Verdict.BUSY)


def test_equal_endpoints_are_told_to_be_alike() -> None:
    """Nothing is cheaper where two cost the same."""
    (won,) = Playbook(2).arrive(1, keys(("doc", 20)))
    assert isinstance(won, Dispatch)
    verdicts = [won.explanation.verdict(it) for it in won.explanation.candidates]
    assert verdicts == [Verdict.WON, Verdict.ALIKE]


def test_work_does_not_grow_with_distinct_loads() -> None:
    """A thousand endpoints with a thousand loads are told apart by a few dozen buckets."""
    buckets = [load_bucket(load) for load in range(1000)]
    assert buckets == sorted(buckets)
    assert len(set(buckets)) <= 40
    assert all(high - low <= 1 for low, high in itertools.pairwise(buckets))
