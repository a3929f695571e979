"""What a region that talks too much costs the router that watches it: a stream over real gRPC."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest

from heliostat_extproc.federation.budget import Budget
from heliostat_extproc.federation.far_region import TELL_SECONDS, FarRegion
from heliostat_extproc.federation.link import Link, LinkSettings
from heliostat_extproc.federation.protocol import STATE_SERVICE, WATCH_METHOD, hello_of
from heliostat_extproc.federation.publication import slot_message
from heliostat_extproc.federation.region import Region
from heliostat_extproc.federation.slots import OwnState, PoolState, Slot
from heliostat_extproc.federation.state_pb2 import WatchRequest, WatchResponse
from heliostat_routing.capacity import PoolCapacity
from heliostat_routing.events import Event, RegionStateReceived

CAPACITY = PoolCapacity(3, 5, 7, 0.25, 0.5, 1.5, 8000.0, 100_000)
HERE = Region("us", "us-1", epoch=1)
Say = Callable[[WatchResponse], Awaitable[None]]
Script = Callable[[Say], Awaitable[None]]


@dataclass
class Watching:
    """What the core is told, and when."""

    loop: asyncio.AbstractEventLoop
    events: list[tuple[float, Event]] = field(default_factory=list)

    def submit(self, event: Event) -> None:
        self.events.append((self.loop.time(), event))

    def states(self) -> list[tuple[float, RegionStateReceived]]:
        return [(at, it) for at, it in self.events if isinstance(it, RegionStateReceived)]

    def newest(self) -> int:
        """The number of the newest state that the core was told."""
        states = self.states()
        return states[-1][1].capacities[0][1].queued if states else 0


def state(number: int, padding: int = 0) -> WatchResponse:
    """The state of this number, with names that mean nothing for padding."""
    pool = PoolState(replace(CAPACITY, queued=number))
    slot = Slot("asia-1", 1, number, OwnState({"llama": pool}))
    message = slot_message(slot, None, "asia")
    for name in range(padding // 250):
        message.gone_models.append(f"{name:0250}")
    return WatchResponse(slots=[message])


async def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until the condition holds; fail at the deadline."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


@asynccontextmanager
async def watched(script: Script) -> AsyncIterator[Watching]:
    """Watch region asia, which does as the script says once it has been heard."""

    async def watch(_requests: object, context: Any) -> None:
        request = WatchRequest.FromString(await context.read())
        hello = WatchResponse(hello=hello_of(Region("asia", "asia-1")), pong=request.ping)

        async def say(response: WatchResponse) -> None:
            await context.write(response.SerializeToString())

        await say(hello)
        await script(say)
        await asyncio.Event().wait()

    with tempfile.TemporaryDirectory(prefix="flood-") as folder:
        socket = Path(folder) / "links.sock"
        server = grpc.aio.server()
        methods = {WATCH_METHOD: grpc.stream_stream_rpc_method_handler(watch)}
        handler: Any = grpc.method_handlers_generic_handler(STATE_SERVICE, methods)
        server.add_generic_rpc_handlers((handler,))
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        loop = asyncio.get_running_loop()
        watching = Watching(loop)
        far = FarRegion(
            "asia",
            "us/us-1",
            submit=watching.submit,
            pool_of_model=lambda model: model,
            on_reachability=lambda _region, _reachable: None,
        )
        far.link = Link(
            "asia",
            "first",
            socket,
            hello_of(HERE),
            far,
            settings=LinkSettings(),
            pause_seconds=lambda: 0.05,
            clock=loop.time,
            random=Random(0),
        )
        running = asyncio.create_task(far.link.run())
        try:
            yield watching
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await server.stop(None)


async def flood(say: Say, padding: int = 0) -> None:
    number = 0
    while True:
        number += 1
        await say(state(number, padding))


async def test_a_flood_is_neither_read_nor_told() -> None:
    """However fast a region talks, it is read at a bounded rate and seldom told to the core."""
    async with watched(flood) as watching:
        await eventually(lambda: watching.newest() >= 50)
        since, first = watching.states()[-1][0], watching.newest()
        await eventually(lambda: watching.states()[-1][0] > since + 1.0)
        assert watching.newest() - first < 150
        instants = [at for at, _ in watching.states()]
        assert len(instants) < (instants[-1] - instants[0]) / TELL_SECONDS + 2


async def test_large_messages_are_read_no_faster() -> None:
    """Bytes count as messages do."""
    async with watched(lambda say: flood(say, padding=100_000)) as watching:
        await eventually(lambda: watching.newest() >= 10)
        since, first = watching.states()[-1][0], watching.newest()
        await eventually(lambda: watching.states()[-1][0] > since + 1.5)
        assert watching.newest() - first <= 8


async def test_the_last_word_is_told() -> None:
    """What comes right after something else is told a little later, not forgotten."""

    async def talk(say: Say) -> None:
        for number in range(1, 8):
            await say(state(number))

    async with watched(talk) as watching:
        await eventually(lambda: watching.newest() == 7)
        (first, _), *_, (last, _) = watching.states()
        assert len(watching.states()) < 7
        assert last - first < 4 * TELL_SECONDS


@pytest.mark.parametrize("pause_seconds", [0.0, 100.0])
def test_a_budget_fills_up_to_its_burst(pause_seconds: float) -> None:
    """A long pause allows no more at once than a short one."""
    now = 0.0
    budget = Budget(10.0, 5, lambda: now)
    now = pause_seconds
    assert [budget.spend(1) for _ in range(5)] == [0.0] * 5
    assert budget.spend(1) == pytest.approx(0.1)
    now += 0.1
    assert budget.spend(2) == pytest.approx(0.2)
