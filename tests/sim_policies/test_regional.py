"""GKE's waterfall, GORGO's costs, and llm-d's stickiness."""

from heliostat_sim.policies.gke import GkeGateway, LoadReport
from heliostat_sim.policies.gorgo import Gorgo, QueueStatus
from heliostat_sim.policies.sticky import StickyUntilSaturated

from .fake_port import PROFILE, FakePort, Requests

RATE = PROFILE.prefill_seconds_per_token


def test_gke_overflows_to_the_nearest_region_with_room() -> None:
    """Local until full, then the nearest as far as its room goes, then the next."""
    port, make = FakePort(engines=2, peers=["asia", "eu"]), Requests()
    gateway = GkeGateway(port, capacity_requests=2)
    gateway.start()
    gateway.on_message("asia", LoadReport(room_requests=5, engines=2))
    gateway.on_message("eu", LoadReport(room_requests=1, engines=2))
    for _ in range(6):
        gateway.on_request(make())
    assert port.places == ["us-0", "us-1", "us-0", "us-1"]
    assert [region for _, region in port.forwarded] == ["eu", "asia"]


def test_gke_keeps_traffic_at_home_when_all_is_full() -> None:
    """Nobody has room: the closest region takes it."""
    port, make = FakePort(engines=1, peers=["eu"]), Requests()
    gateway = GkeGateway(port, capacity_requests=1)
    gateway.on_message("eu", LoadReport(room_requests=0, engines=2))
    gateway.on_request(make())
    gateway.on_request(make())
    assert port.places == ["us-0", "us-0"]


def test_gke_places_what_was_forwarded_to_it() -> None:
    """A forwarded request stays, full or not."""
    port, make = FakePort(engines=1, peers=["eu"]), Requests()
    gateway = GkeGateway(port, capacity_requests=0)
    gateway.on_message("eu", LoadReport(room_requests=5, engines=2))
    gateway.on_request(make(forwarded=True))
    assert port.places == ["us-0"]


def test_gorgo_weighs_cache_against_queue() -> None:
    """A known prefix is worth as much queue as it saves prefill, and no more."""
    port, make = FakePort(engines=2), Requests()
    balancer = Gorgo(port)
    first = make((1, 1600))
    balancer.on_request(first)
    balancer.on_first_token(first)
    balancer.on_request(make((1, 1600), (2, 160)))
    balancer.on_request(make((1, 1600), (3, 160)))
    assert port.places == ["us-0", "us-0", "us-1"]


def test_gorgo_forwards_when_queue_at_home_costs_more_than_the_way() -> None:
    """The round trip to eu, 100 ms, is 250 tokens of prefill."""
    port, make = FakePort(engines=1, peers=["eu"]), Requests()
    balancer = Gorgo(port)
    balancer.on_message("eu", QueueStatus(0.0, RATE))
    balancer.on_request(make((1, 208)))
    balancer.on_request(make((2, 208)))
    balancer.on_request(make((3, 208)))
    assert port.places == ["us-0", "us-0"]
    assert [region for _, region in port.forwarded] == ["eu"]


def test_gorgo_counts_what_it_forwarded_since_the_last_word() -> None:
    """A burst does not all go to the region that looked idle."""
    port, make = FakePort(engines=1, peers=["eu"]), Requests()
    balancer = Gorgo(port)
    balancer.on_message("eu", QueueStatus(0.0, RATE))
    for text in range(1, 7):
        balancer.on_request(make((text, 320)))
    assert 1 < len(port.places) < 6


def test_sticky_stays_until_saturated() -> None:
    """The warm engine is left once it is a second of prefill ahead of the idlest."""
    port, make = FakePort(engines=2), Requests()
    balancer = StickyUntilSaturated(port)
    balancer.on_request(make((1, 3200)))
    balancer.on_first_token(port.dispatched[0][0])
    for text in range(2, 8):
        balancer.on_request(make((1, 3200), (text, 640)))
    assert port.places == ["us-0"] * 5 + ["us-1", "us-0"]


def test_sticky_takes_the_idlest_for_what_nobody_knows() -> None:
    """Less than four fifths known is not warm."""
    port, make = FakePort(engines=2), Requests()
    balancer = StickyUntilSaturated(port)
    balancer.on_request(make((1, 320)))
    balancer.on_request(make((1, 320), (2, 160)))
    assert port.places == ["us-0", "us-1"]
