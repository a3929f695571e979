"""Round robin, least load, ring hash, and what all pushing policies share."""

from heliostat_sim.policies.hash_ring import HashRing
from heliostat_sim.policies.plain import LeastLoad, RingHash, RoundRobin
from heliostat_sim.policies.pushing import MAX_REFUSALS
from heliostat_sim.world.request import Ending

from .fake_port import FakePort, Requests


def test_round_robin_takes_engines_in_turn() -> None:
    """Four requests on three engines go around once and begin again."""
    port, make = FakePort(), Requests()
    balancer = RoundRobin(port)
    for _ in range(4):
        balancer.on_request(make())
    assert port.places == ["us-0", "us-1", "us-2", "us-0"]


def test_least_load_counts_its_own_open_requests() -> None:
    """A finished request frees its engine; of equals the first is taken."""
    port, make = FakePort(engines=2), Requests()
    balancer = LeastLoad(port)
    first, second, third = make(), make(), make()
    balancer.on_request(first)
    balancer.on_request(second)
    balancer.on_finished(second)
    balancer.on_request(third)
    assert port.places == ["us-0", "us-1", "us-1"]


def test_ring_hash_keeps_a_user_on_one_engine() -> None:
    """Equal users go to equal engines, and users spread."""
    port, make = FakePort(engines=4), Requests()
    balancer = RingHash(port)
    for user in range(40):
        balancer.on_request(make(user=user))
        balancer.on_request(make(user=user))
    assert port.places[0::2] == port.places[1::2]
    assert len(set(port.places)) == 4


def test_a_ring_moves_only_the_keys_of_the_target_that_left() -> None:
    """Keys of targets that stay do not move."""
    ring = HashRing()
    ring.set_targets("abcd")
    before = {key: ring.pick(str(key), "abcd") for key in range(200)}
    ring.set_targets("abc")
    assert all(ring.pick(str(key), "abc") == at for key, at in before.items() if at != "d")
    assert all(before[key] == ring.pick(str(key), "abcd") for key in before if before[key] != "d")


def test_an_engine_that_refused_is_left_alone_until_it_answers() -> None:
    """The request goes elsewhere, and the engine gets nothing until a probe succeeds."""
    port, make = FakePort(engines=2), Requests()
    balancer = LeastLoad(port)
    request = make()
    balancer.on_request(request)
    port.waiting["us-0"] = None
    balancer.on_failed(request, port.engines[0])
    port.run(5.0)
    balancer.on_request(make())
    port.waiting["us-0"] = 0
    port.run(1.5)
    balancer.on_request(make())
    assert port.places == ["us-0", "us-1", "us-1", "us-0"]


def test_requests_without_an_engine_are_kept_until_one_comes() -> None:
    """Nothing is lost while no engine works."""
    port, make = FakePort(engines=1), Requests()
    balancer = RoundRobin(port)
    engines, port.engines = port.engines, ()
    balancer.on_request(make())
    assert not port.dispatched
    port.engines = engines
    balancer.on_engines_changed()
    assert port.places == ["us-0"]


def test_a_request_that_every_engine_refuses_is_rejected() -> None:
    """It does not go around for ever."""
    port, make = FakePort(engines=1), Requests()
    balancer = RoundRobin(port)
    request = make()
    balancer.on_request(request)
    for _ in range(MAX_REFUSALS + 1):
        balancer.on_failed(request, port.engines[0])
        port.run(1.5)
    assert port.ended == [(request, Ending.REJECTED)]
