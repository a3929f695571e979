"""The bound on throughput."""

import pytest

from heliostat_sim.engine import PROFILES
from heliostat_sim.policies.bound import (
    Load,
    engine_seconds,
    largest_batch,
    shared_cache_tokens,
    throughput_bound,
)

from .fake_port import Requests

PROFILE = PROFILES["l4-llama-8b"]


def load(**changes: float) -> Load:
    values = {
        "prompt_tokens": 1000.0,
        "cached_tokens": 500.0,
        "output_tokens": 200.0,
        "open_requests": 240.0,
    }
    return Load(**(values | changes))


def test_a_shared_cache_knows_prompts_and_answers_of_all_before() -> None:
    """Full blocks match, and the last token of a prompt is always computed."""
    make = Requests()
    first, again, longer = make((1, 160)), make((1, 160)), make((1, 160), (2, 160))
    assert shared_cache_tokens([first, again, longer]) == (144 + 160, 640)


def test_few_clients_are_bound_by_their_own_pace() -> None:
    """One client gets one request at a time."""
    bound = throughput_bound(PROFILE, 8, load(open_requests=1.0))
    assert bound.requests_per_second == bound.client_requests_per_second
    slower = throughput_bound(PROFILE, 8, load(open_requests=1.0, think_seconds=100.0))
    assert slower.requests_per_second < bound.requests_per_second


def test_many_clients_are_bound_by_the_engines() -> None:
    """Twice the engines do twice as much."""
    one = throughput_bound(PROFILE, 1, load(open_requests=1e6))
    two = throughput_bound(PROFILE, 2, load(open_requests=1e6))
    assert one.requests_per_second == one.engine_requests_per_second
    assert two.requests_per_second == pytest.approx(2 * one.requests_per_second)


def test_the_batch_is_limited_by_memory_places_and_clients() -> None:
    """Each of the three can be the narrowest."""
    assert largest_batch(PROFILE, load(open_requests=1e6), 1) == pytest.approx(28_000 / 599.5)
    tiny = load(prompt_tokens=20.0, cached_tokens=16.0, output_tokens=3.0, open_requests=1e6)
    assert largest_batch(PROFILE, tiny, 1) == 256
    assert largest_batch(PROFILE, load(), 12) == 20


def test_engine_time_falls_with_the_batch_down_to_the_prefill() -> None:
    """Decoding is shared by the batch, prefill is not."""
    seconds = [engine_seconds(PROFILE, load(), batch) for batch in (1, 4, 16, 64)]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[-1] > 500 * PROFILE.prefill_seconds_per_token


def test_tokens_are_counted_as_in_the_paper() -> None:
    """Prompt once, cached or not, and output twice."""
    bound = throughput_bound(PROFILE, 4, load())
    assert bound.tokens_per_second == pytest.approx(bound.requests_per_second * 1400)
