"""What comes while an engine makes one step is computed in the next, together."""

import pytest

from heliostat_routing.events import Outcome, RequestFinished, RequestMeasured
from tests.routing.playbook import Playbook, target

RATE = 1280.0
"""Prefills ten blocks in one second, one in a tenth."""
STEP_SECONDS = 0.2


def prompt(group: int, blocks: int = 1) -> tuple[int, ...]:
    """A prompt that shares nothing with the others."""
    return tuple(group * 1000 + number for number in range(blocks))


@pytest.fixture
def book() -> Playbook:
    """One endpoint, whose steps are known from an answer to take 0.2 s."""
    book = Playbook(1, prefill_tokens_per_second=RATE)
    assert target(book.arrive(1, prompt(1))) == "e0"
    book.tick(10.0)
    book.tell(RequestFinished(1))
    measured = RequestMeasured(
        1,
        "e0",
        Outcome.SERVED,
        ttft_seconds=0.1,
        duration_seconds=0.1 + 49 * STEP_SECONDS,
        prompt_tokens=128,
        cached_tokens=0,
        output_tokens=50,
    )
    book.tell(measured)
    return book


def test_short_prompts_share_a_step(book: Playbook) -> None:
    """Prompts whose work together is less than a step go to a busy engine at once, others wait."""
    assert target(book.arrive(2, prompt(2))) == "e0"
    assert target(book.arrive(3, prompt(3))) == "e0"
    assert target(book.arrive(4, prompt(4))) is None, "0.2 s of work and the way are ahead"


def test_a_long_prompt_frees_its_engine_a_step_before_it_is_done(book: Playbook) -> None:
    """The next prompt leaves in time to be there when the step after the long one begins."""
    assert target(book.arrive(2, prompt(2, blocks=10))) == "e0"
    assert target(book.arrive(3, prompt(3))) is None
    assert target(book.tick(0.79)) is None
    assert target(book.tick(0.02)) == "e0"


def test_a_request_that_waits_for_the_step_under_way_closes_nothing(book: Playbook) -> None:
    """A scrape that shows it waiting is no sign of a full engine, until a step has passed."""
    assert target(book.arrive(2, prompt(2))) == "e0"
    book.scrape("e0", after=0.15, running_requests=0, waiting_requests=1)
    assert target(book.arrive(3, prompt(3))) == "e0"
    book.scrape("e0", after=1.0, running_requests=0, waiting_requests=2)
    assert target(book.arrive(4, prompt(4))) is None
