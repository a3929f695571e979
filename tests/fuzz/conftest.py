"""A time budget for `make fuzz`: every target is run again, with other examples, until it is spent.

In the normal tests each target runs once, for about as long as any other property.
"""

import logging
from collections.abc import Generator
from time import monotonic

import pytest
import structlog
from hypothesis import settings

EXAMPLES_PER_ROUND = 300


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--seconds`."""
    parser.addoption(
        "--seconds", type=float, default=0.0, help="fuzz this long, all targets together"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Take more examples at a time where there is a budget."""
    if _budget_seconds(config):
        settings.register_profile(
            "fuzz", settings.get_profile("busy-machine"), max_examples=EXAMPLES_PER_ROUND
        )
        settings.load_profile("fuzz")
        quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)
        structlog.configure(wrapper_class=quiet)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Run a target until its part of the budget is spent."""
    began_at, rounds = monotonic(), 1
    yield
    seconds = _budget_seconds(item.config) / len(item.session.items)
    while monotonic() - began_at < seconds:
        item.runtest()
        rounds += 1
    if seconds:
        print(f"{rounds * EXAMPLES_PER_ROUND} examples in {monotonic() - began_at:.0f} s")


def _budget_seconds(config: pytest.Config) -> float:
    return float(config.getoption("--seconds", default=0.0))
