"""SkyLB's two layers, its queue, and its variants."""

import pytest

from heliostat_sim.policies.registry import PolicyName, factory
from heliostat_sim.policies.skylb import BalancerStatus, SkyLb
from heliostat_sim.world.settings import RegionSettings, WorldSettings

from .fake_port import PROFILE, FakePort, Requests


def make_skylb(port: FakePort, name: PolicyName = PolicyName.SKYLB) -> SkyLb:
    settings = WorldSettings((RegionSettings("us", len(port.engines)),), PROFILE, {})
    balancer = factory(name, settings)(port)
    assert isinstance(balancer, SkyLb)
    balancer.start()
    return balancer


def test_nothing_is_counted_at_dispatch() -> None:
    """Between two probes any number of requests goes to an engine that had none waiting."""
    port, make = FakePort(engines=1), Requests()
    balancer = make_skylb(port)
    for _ in range(50):
        balancer.on_request(make())
    assert len(port.dispatched) == 50


def test_an_engine_with_a_waiting_request_gets_nothing_until_a_probe_says_otherwise() -> None:
    """Requests queue, and the loop takes one each 10 ms once the engine is available."""
    port, make = FakePort(engines=1), Requests()
    port.waiting["us-0"] = 1
    balancer = make_skylb(port)
    for _ in range(3):
        balancer.on_request(make())
    port.run(0.095)
    assert not port.dispatched
    port.waiting["us-0"] = 0
    port.run(0.016)
    assert len(port.dispatched) in {1, 2}
    port.run(0.05)
    assert [request.id for request, _ in port.dispatched] == [1, 2, 3]


@pytest.mark.parametrize("waiting", [0, 1])
def test_a_lost_probe_leaves_an_engine_as_it_was(waiting: int) -> None:
    """One that was available goes on to be it, and one that was not does not become it."""
    port, make = FakePort(engines=1), Requests()
    port.waiting["us-0"] = waiting
    balancer = make_skylb(port)
    port.run(0.15)
    port.waiting["us-0"] = None
    port.run(1.0)
    balancer.on_request(make())
    assert len(port.dispatched) == (not waiting)


def test_a_dead_engine_is_unavailable() -> None:
    """Once it has refused a request it gets none until a probe has an answer."""
    port, make = FakePort(engines=1), Requests()
    balancer = make_skylb(port)
    request = make()
    balancer.on_request(request)
    port.waiting["us-0"] = None
    balancer.on_failed(request, port.engines[0])
    port.run(1.0)
    assert len(port.dispatched) == 1
    port.waiting["us-0"] = 0
    port.run(0.2)
    assert len(port.dispatched) == 2


def test_local_engines_win_whatever_a_peer_offers() -> None:
    """A request is forwarded only when no local engine is available."""
    port, make = FakePort(engines=1, peers=["eu"]), Requests()
    balancer = make_skylb(port)
    balancer.on_message("eu", BalancerStatus(8, 0))
    balancer.on_request(make())
    assert port.places == ["us-0"]
    port.waiting["us-0"] = 3
    port.run(0.1)
    balancer.on_message("eu", BalancerStatus(8, 0))
    balancer.on_request(make())
    assert [region for _, region in port.forwarded] == ["eu"]


def test_a_peer_is_available_only_with_engines_and_a_queue_below_the_bounds() -> None:
    """No engine, a queue above ten or one longer than the own rules a peer out."""
    for status in (BalancerStatus(0, 0), BalancerStatus(3, 11), BalancerStatus(3, 2)):
        port, make = FakePort(engines=0, peers=["eu"]), Requests()
        balancer = make_skylb(port)
        balancer.on_message("eu", status)
        balancer.on_request(make())
        assert not port.forwarded


def test_queues_are_compared_at_the_pick() -> None:
    """A peer's queue that was longer than the own when it told is not once the own has grown."""
    port, make = FakePort(engines=0, peers=["eu"]), Requests()
    balancer = make_skylb(port)
    balancer.on_message("eu", BalancerStatus(3, 2))
    balancer.on_request(make())
    assert not port.forwarded
    balancer.on_request(make())
    port.run(0.015)
    assert len(port.forwarded) == 1
    port.run(0.1)
    assert len(balancer.queue) == 1, "which is shorter than the peer's"


def test_a_silent_peer_becomes_unavailable() -> None:
    """Nothing goes to a region that has not been heard from."""
    port, make = FakePort(engines=0, peers=["eu"]), Requests()
    balancer = make_skylb(port)
    balancer.on_message("eu", BalancerStatus(3, 0))
    port.run(1.5)
    balancer.on_request(make())
    assert not port.forwarded


def test_a_forwarded_request_waits_and_goes_no_further() -> None:
    """One hop at most: it stays in the peer's queue."""
    port, make = FakePort(engines=0, peers=["eu"]), Requests()
    balancer = make_skylb(port)
    balancer.on_message("eu", BalancerStatus(3, 0))
    balancer.on_request(make(forwarded=True))
    port.run(0.5)
    assert not port.forwarded
    assert len(balancer.queue) == 1


def test_peers_are_told_available_engines_and_queue_length() -> None:
    """Every 100 ms, from the start."""
    port, make = FakePort(engines=2, peers=["eu", "asia"]), Requests()
    port.waiting["us-0"] = port.waiting["us-1"] = 1
    balancer = make_skylb(port)
    balancer.on_request(make())
    port.run(0.1)
    assert port.told[-2:] == [("eu", BalancerStatus(0, 1)), ("asia", BalancerStatus(0, 1))]


def test_a_match_above_half_wins_and_least_load_otherwise() -> None:
    """Among available engines: prefix first, then the least loaded, matched ones included."""
    port, make = FakePort(engines=2), Requests()
    balancer = make_skylb(port)
    balancer.on_request(make((1, 320)))
    balancer.on_request(make((1, 320), (2, 160)))
    balancer.on_request(make((3, 320)))
    balancer.on_request(make((3, 160), (4, 320)))
    assert port.places == ["us-0", "us-0", "us-1", "us-1"]


def test_a_region_is_chosen_by_what_was_forwarded_to_it() -> None:
    """The second layer has its own memory of prefixes."""
    port, make = FakePort(engines=0, peers=["eu", "asia"]), Requests()
    balancer = make_skylb(port)
    for _ in range(2):
        balancer.on_message("eu", BalancerStatus(3, 0))
        balancer.on_message("asia", BalancerStatus(3, 0))
        for text in (1, 2, 1):
            balancer.on_request(make((text, 320)))
    regions = [region for _, region in port.forwarded]
    assert regions == ["eu", "asia", "eu"] * 2


def test_ring_hash_walks_past_unavailable_engines() -> None:
    """A user's engine is left only while it is unavailable."""
    port, make = FakePort(engines=3), Requests()
    balancer = make_skylb(port, PolicyName.SKYLB_CH)
    balancer.on_request(make(user=5))
    home = port.places[0]
    port.waiting[home] = 1
    port.run(0.1)
    balancer.on_request(make(user=5))
    port.waiting[home] = 0
    port.run(0.1)
    balancer.on_request(make(user=5))
    assert port.places[1] != home
    assert port.places[2] == home


def test_a_refused_request_goes_first() -> None:
    """It is put back at the head of the queue, and its engine waits for a probe."""
    port, make = FakePort(engines=1), Requests()
    balancer = make_skylb(port)
    first, second = make(), make()
    balancer.on_request(first)
    balancer.on_failed(first, port.engines[0])
    balancer.on_request(second)
    port.run(0.2)
    assert [request for request, _ in port.dispatched] == [first, first, second]


def test_selective_pushing_by_outstanding_stops_at_its_cap() -> None:
    """Ten open requests an engine; a finish lets the next in."""
    port, make = FakePort(engines=2), Requests()
    balancer = make_skylb(port, PolicyName.SELECTIVE_PUSH_OUTSTANDING)
    for _ in range(21):
        balancer.on_request(make())
    port.run(1.0)
    assert len(port.dispatched) == 20
    balancer.on_finished(port.dispatched[0][0])
    port.run(0.05)
    assert len(port.dispatched) == 21


def test_blind_pushing_never_waits_and_rebalances() -> None:
    """A prefix sticks until loads are more than 32 apart."""
    port, make = FakePort(engines=2), Requests()
    port.waiting["us-0"] = 7
    balancer = make_skylb(port, PolicyName.BLIND_PUSH)
    for _ in range(34):
        balancer.on_request(make((1, 320)))
    assert port.places == ["us-0"] * 33 + ["us-1"]
