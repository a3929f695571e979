"""SGLang's cache-aware rule."""

from heliostat_sim.policies.sglang import SglangRouter, is_imbalanced

from .fake_port import FakePort, Requests


def test_imbalance_needs_both_thresholds() -> None:
    """More than 32 apart and more than 1.0001 times."""
    assert is_imbalanced([0, 33])
    assert not is_imbalanced([0, 32])
    assert not is_imbalanced([1_000_000, 1_000_033])


def test_goes_to_the_engine_that_knows_more_than_half_of_the_prompt() -> None:
    """A match above the threshold decides, whatever the load."""
    port, make = FakePort(), Requests()
    router = SglangRouter(port)
    router.start()
    for _ in range(3):
        router.on_request(make((1, 320), (2, 160)))
    assert set(port.places) == {"us-0"}


def test_goes_to_the_smallest_tree_at_half_a_match_or_less() -> None:
    """Exactly half is not above the threshold; then the smallest tree decides, not the load."""
    port, make = FakePort(engines=2), Requests()
    router = SglangRouter(port)
    router.on_request(make((1, 1600)))
    router.on_request(make((2, 160)))
    router.on_request(make((3, 160)))
    router.on_request(make((1, 160), (4, 160)))
    assert port.places == ["us-0", "us-1", "us-1", "us-1"]


def test_goes_to_the_shortest_queue_when_imbalanced() -> None:
    """The 34th request with one prefix leaves its engine."""
    port, make = FakePort(engines=2), Requests()
    router = SglangRouter(port)
    for _ in range(34):
        router.on_request(make((1, 320)))
    assert port.places == ["us-0"] * 33 + ["us-1"]
