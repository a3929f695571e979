"""The engine's clock against the formulas of its profile."""

from dataclasses import replace

import pytest

from heliostat_sim.engine import PROFILES, Engine, EngineEvent, Finished, FirstToken

from .engine_model import events_until_idle, request

L4 = PROFILES["l4-llama-8b"]


def run_alone(prompt_tokens: int, output_tokens: int, engine: Engine | None = None) -> Finished:
    """Run one request on an idle engine, from instant 0."""
    engine = engine or Engine(L4)
    engine.submit(request(1, range(prompt_tokens), output_tokens), 0.0)
    return next(e for e in events_until_idle(engine) if isinstance(e, Finished))


@pytest.mark.parametrize(
    ("prompt_tokens", "seconds"),
    [(10, 0.065 + 0.003), (512, 512 * 0.4e-3 + 0.003), (4096, 2 * (2048 * 0.4e-3 + 0.003))],
)
def test_prefill_takes_the_floor_or_the_tokens_times_their_cost(
    prompt_tokens: int, seconds: float
) -> None:
    """Time to first token is the floor for a short prompt, else linear, chunk by chunk."""
    assert run_alone(prompt_tokens, 1).first_token_at == pytest.approx(seconds)


def test_a_decode_step_reads_weights_and_context() -> None:
    """Each later token costs 63 ms, half a microsecond per context token and the overhead."""
    end = run_alone(1000, 101)
    context_tokens = sum(range(1000, 1100))
    expected = 100 * (0.063 + 0.003) + context_tokens * 0.5e-6
    assert end.at - end.first_token_at == pytest.approx(expected)


def test_a_cached_prefix_is_not_computed_again() -> None:
    """The second time only the uncached tail is paid for."""
    engine = Engine(L4)
    run_alone(2000, 1, engine)
    engine.submit(request(2, range(2000), 1), 100.0)
    (first, _) = events_until_idle(engine)
    assert isinstance(first, FirstToken)
    assert first.cached_tokens == 1999 // 16 * 16
    assert first.at - 100.0 == pytest.approx(0.068)


def test_decoding_goes_on_while_a_prompt_is_computed_in_chunks() -> None:
    """A long prompt slows the steps of others down but never stops them."""
    engine = Engine(L4)
    engine.submit(request(1, range(16), 20), 0.0)
    engine.advance(0.07)
    engine.submit(request(2, range(1000, 6000), 1), 0.07)
    seen: list[EngineEvent] = []
    tokens_before = engine.output_tokens(1)
    while not any(isinstance(event, FirstToken) and event.request_id == 2 for event in seen):
        at = engine.next_step_at()
        assert at is not None
        seen += engine.advance(at)
    assert engine.output_tokens(1) - tokens_before == 4


def test_speed_divides_every_time() -> None:
    """An engine of speed 10 does the same in a tenth of the time."""
    slow = run_alone(3000, 50)
    fast = run_alone(3000, 50, Engine(replace(L4, speed_ratio=10.0)))
    assert fast.first_token_at == pytest.approx(slow.first_token_at / 10)
    assert fast.at == pytest.approx(slow.at / 10)


def test_a_leap_over_uniform_steps_takes_no_work_per_step() -> None:
    """A thousand decode steps of one request are two runs, not a thousand."""
    engine = Engine(L4)
    engine.submit(request(1, range(16), 1001), 0.0)
    wakes = 0
    while (at := engine.next_event_at()) is not None:
        engine.advance(at)
        wakes += 1
    assert wakes == 2
