"""A gateway's pod, and engines that fail."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parent))

from faulty_engine import FaultyEngine, running_engine
from gateway_pod import GatewayPod, running_pod


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pod(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayPod]:
    """A pod for the tests of a module that leave it whole; each brings a pool of its own.

    There is one more pool, so that nothing but the router can tell where a request goes.
    """
    async with running_pod(tmp_path_factory.mktemp("pod")) as running:
        running.write_pool("spare", "127.0.0.1:9")
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def engines() -> AsyncIterator[Callable[[], Awaitable[FaultyEngine]]]:
    """Start an engine; all end with the test."""
    async with AsyncExitStack() as stack:
        yield lambda: stack.enter_async_context(running_engine())


@pytest.fixture
def model(request: pytest.FixtureRequest) -> str:
    """A model that no other test serves."""
    return f"m{abs(hash(request.node.name)) % 10**8}"
