"""The mean request of a closed-loop workload."""

from itertools import islice

import pytest

from heliostat_sim.findings.offered import (
    asked,
    closed_bound,
    closed_load,
    servable_tokens_per_second,
)
from heliostat_sim.scenario.scenario import load_scenario


def test_clients_ask_in_turn() -> None:
    """Each client asks once before any asks again."""
    scenario = load_scenario("arena").shortened()
    clients = scenario.demand(0).closed
    first = list(islice(asked(clients), len(clients)))
    assert all(ask.position == 0 for ask in first)
    assert len({id(ask.chain) for ask in first}) == len(clients)


def test_a_tree_is_asked_whole() -> None:
    """All 15 requests of a tree with two branches come before the next tree's root."""
    scenario = load_scenario("tree-of-thoughts").with_changes(
        {"regions.us.clients": 1, "regions.asia.clients": 0, "regions.eu.clients": 0}
    )
    positions = [ask.position for ask in islice(asked(scenario.demand(0).closed), 16)]
    assert positions == [*range(15), 0]


def test_a_trees_open_requests_are_its_requests_over_its_levels() -> None:
    """A client with 15 requests on 4 levels has 3.75 open in the mean."""
    scenario = load_scenario("pushing")
    assert closed_load(scenario, 0, 50).open_requests == pytest.approx(30 * 3.75)


def test_thinking_lowers_the_bound() -> None:
    """Clients that think between requests ask for less, and the bound follows."""
    scenario = load_scenario("wildchat")
    slow = scenario.with_changes({"think": "60s"})
    usual, thinking = (closed_bound(s, 0, 400) for s in (scenario, slow))
    assert thinking.client_requests_per_second < usual.client_requests_per_second
    assert thinking.tokens_per_second < usual.tokens_per_second


def test_what_is_servable_ends_within_its_span() -> None:
    """Spans that follow each other hold the whole, and nothing is served before its answer."""
    scenario = load_scenario("skew").shortened()
    spans = ((0.0, 30.0), (0.0, 15.0), (15.0, 30.0), (0.0, 0.01))
    whole, first, second, nothing = (
        servable_tokens_per_second(scenario, scenario.demand(0), begin, end) * (end - begin)
        for begin, end in spans
    )
    assert 0.0 < first < whole
    assert first + second == pytest.approx(whole)
    assert nothing == 0.0
