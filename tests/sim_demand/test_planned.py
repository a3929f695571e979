from itertools import islice
from pathlib import Path

import pytest

from heliostat_sim.demand.planned import planned_arrivals, planned_clients, planned_user
from heliostat_sim.demand.similarity import asks_of
from heliostat_sim.workload.conversations import ConversationSettings, conversations
from heliostat_sim.workload.mooncake import mooncake
from heliostat_sim.workload.session import Workload, WorkloadError, with_poisson_arrivals
from heliostat_sim.workload.traces import TraceWindow

WEIGHTS = {"us": 2.0, "eu": 1.0}


def chats() -> Workload:
    return conversations(ConversationSettings(), 7)


def test_arrivals_are_the_plans_sessions() -> None:
    """Times, prompts and answers are those that the load tool would send."""
    workload = with_poisson_arrivals(chats(), 2.0)
    arrivals = planned_arrivals(workload, WEIGHTS)
    for plan, arrival in islice(zip(workload, arrivals, strict=False), 50):
        assert arrival.at == plan.at_seconds
        asks = list(asks_of(arrival.session))
        assert [ask.prompt_tokens for ask in asks] == [
            plan.prompt_tokens(turn) for turn in range(len(plan.turns))
        ]
        assert [ask.output_tokens for ask in asks] == [turn.output_tokens for turn in plan.turns]
        assert [ask.think_seconds for ask in asks] == [turn.think_seconds for turn in plan.turns]


def test_a_user_stays_in_one_region() -> None:
    """Regions are taken by weight, and all of a user's sessions are in one."""
    homes: dict[int, set[str]] = {}
    arrivals = planned_arrivals(with_poisson_arrivals(chats(), 2.0), WEIGHTS)
    for arrival in islice(arrivals, 500):
        homes.setdefault(arrival.session.user, set()).add(arrival.region)
    assert all(len(regions) == 1 for regions in homes.values())
    in_us = sum(regions == {"us"} for regions in homes.values())
    assert in_us / len(homes) == pytest.approx(2 / 3, abs=0.15)


def test_clients_share_the_plan_among_them() -> None:
    """Each session of an untimed workload goes to one client, whoever asks first."""
    clients = planned_clients(chats(), {"us": 2, "eu": 1})
    assert [client.region for client in clients] == ["us", "us", "eu"]
    dealt = [[session.user for session in islice(c.sessions, 20)] for c in reversed(clients)]
    planned = [planned_user(plan) for plan in islice(chats(), 60)]
    assert [dealt[2], dealt[1], dealt[0]] == [planned[0::3], planned[1::3], planned[2::3]]


def test_traces_share_blocks(tmp_path: Path) -> None:
    """Requests of a trace share the prefix that their ids share."""
    trace = tmp_path / "trace.jsonl"
    trace.write_text(
        '{"timestamp": 0, "input_length": 1100, "output_length": 9, "hash_ids": [0, 1, 2]}\n'
        '{"timestamp": 5000, "input_length": 1200, "output_length": 9, "hash_ids": [0, 1, 3]}\n'
    )
    arrivals = planned_arrivals(mooncake(trace, TraceWindow(time_scale=2), 1), {"us": 1.0})
    one, other = list(arrivals)
    assert (one.at, other.at) == (0.0, 2.5)
    (first,), (second,) = one.session.start(), other.session.start()
    assert first.chain.hashes[:64] == second.chain.hashes[:64]
    assert first.chain.hashes[64] != second.chain.hashes[64]
    assert first.prompt_tokens == 1100
    assert one.session.user == other.session.user


def test_untimed_workloads_do_not_arrive() -> None:
    """A workload without times, or weights of no region, cannot become arrivals."""
    with pytest.raises(WorkloadError, match="does not say when"):
        planned_arrivals(chats(), WEIGHTS)
    with pytest.raises(WorkloadError, match="weight"):
        planned_arrivals(with_poisson_arrivals(chats(), 1.0), {"us": 0.0})
