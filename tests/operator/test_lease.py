"""Leader election over real HTTP, with a clock of the test's."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from heliostat_kube.api import KubeApi
from heliostat_kube.connection import Connection
from heliostat_operator.lease import Leadership, LeaseLostError
from heliostat_operator.settings import LeaseTiming
from tests.kube.api_server import FakeApiServer, running_api_server

LEASE = "/apis/coordination.k8s.io/v1/namespaces/ours/leases/operator"
QUICK = LeaseTiming(duration_seconds=15, renew_deadline_seconds=10, retry_seconds=0.005)


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with running_api_server() as running:
        yield running


@pytest.fixture
async def api(server: FakeApiServer) -> AsyncIterator[KubeApi]:
    async with KubeApi(Connection(server=server.url)) as client:
        yield client


def candidate(api: KubeApi, identity: str, clock: Clock, timing: LeaseTiming = QUICK) -> Leadership:
    return Leadership(
        api, namespace="ours", name="operator", identity=identity, timing=timing, clock=clock
    )


def holder(server: FakeApiServer) -> str:
    return str(server.objects[LEASE]["spec"]["holderIdentity"])


async def started(waiting: Leadership, server: FakeApiServer) -> asyncio.Task[None]:
    """Have a candidate wait for the Lease, and see it asking."""
    task = asyncio.create_task(waiting.acquire())
    asked = server.calls("GET")
    async with asyncio.timeout(5):
        while server.calls("GET") < asked + 3:  # noqa: ASYNC110 - counted by the server
            await asyncio.sleep(0.001)
    return task


async def test_the_first_leads_and_the_second_waits(api: KubeApi, server: FakeApiServer) -> None:
    """Of two replicas one leads, as long as the Lease is young."""
    clock = Clock()
    await candidate(api, "one", clock).acquire()
    waiting = await started(candidate(api, "two", clock), server)
    clock.now += 14
    assert not waiting.done()
    assert holder(server) == "one"
    waiting.cancel()


async def test_a_silent_leader_is_succeeded(api: KubeApi, server: FakeApiServer) -> None:
    """A Lease unchanged for its duration, on the successor's own clock, passes on."""
    clock = Clock()
    await candidate(api, "one", clock).acquire()
    waiting = await started(candidate(api, "two", clock), server)
    clock.now += 15
    async with asyncio.timeout(5):
        await waiting
    assert holder(server) == "two"
    assert server.objects[LEASE]["spec"]["leaseTransitions"] == 1


async def test_a_renewed_lease_stays(api: KubeApi, server: FakeApiServer) -> None:
    """Each renewal starts the successor's patience anew."""
    clock = Clock()
    leader = candidate(api, "one", clock)
    await leader.acquire()
    holding = asyncio.create_task(leader.hold())
    waiting = await started(candidate(api, "two", clock), server)
    for _ in range(5):
        clock.now += 9
        version = server.version
        async with asyncio.timeout(5):
            while server.version == version:  # noqa: ASYNC110 - counted by the server
                await asyncio.sleep(0.001)
    assert not waiting.done()
    assert not holding.done()
    for task in (waiting, holding):
        task.cancel()


async def test_a_released_lease_is_taken_at_once(api: KubeApi, server: FakeApiServer) -> None:
    """A leader that ends in good order leaves no gap."""
    clock = Clock()
    leader = candidate(api, "one", clock)
    await leader.acquire()
    waiting = await started(candidate(api, "two", clock), server)
    await leader.release()
    async with asyncio.timeout(5):
        await waiting
    assert holder(server) == "two"


async def test_a_leader_that_cannot_renew_stops(api: KubeApi, server: FakeApiServer) -> None:
    """After the renew deadline it stops by itself, before anyone else may start."""
    clock = Clock()
    leader = candidate(api, "one", clock)
    await leader.acquire()
    holding = asyncio.create_task(leader.hold())
    server.faults = [(503, "ServiceUnavailable")] * 10_000
    clock.now += 10
    with pytest.raises(LeaseLostError):
        async with asyncio.timeout(5):
            await holding


async def test_a_short_outage_costs_nothing(api: KubeApi, server: FakeApiServer) -> None:
    """Renewals that fail within the deadline are tried again."""
    clock = Clock()
    leader = candidate(api, "one", clock)
    await leader.acquire()
    server.faults = [(503, "ServiceUnavailable")] * 3
    version = server.version
    holding = asyncio.create_task(leader.hold())
    async with asyncio.timeout(5):
        while server.version == version:  # noqa: ASYNC110 - counted by the server
            await asyncio.sleep(0.001)
    assert not holding.done()
    holding.cancel()


async def test_a_leader_whose_lease_was_taken_stops(api: KubeApi, server: FakeApiServer) -> None:
    """Whoever finds another's name in the Lease is not the leader."""
    clock = Clock()
    leader = candidate(api, "one", clock)
    await leader.acquire()
    taken = server.objects[LEASE]
    server.put(LEASE, {**taken, "spec": {**taken["spec"], "holderIdentity": "two"}})
    with pytest.raises(LeaseLostError, match="two"):
        async with asyncio.timeout(5):
            await leader.hold()


async def test_a_foreign_touch_of_the_lease_is_survived(
    api: KubeApi, server: FakeApiServer
) -> None:
    """A label on the Lease makes one renewal conflict, and nothing more."""
    clock = Clock()
    leader = candidate(api, "one", clock)
    await leader.acquire()
    touched = server.objects[LEASE]
    metadata = {**touched["metadata"], "labels": {"x": "1"}}
    version = server.put(LEASE, {**touched, "metadata": metadata})["metadata"]["resourceVersion"]
    holding = asyncio.create_task(leader.hold())
    async with asyncio.timeout(5):
        while server.version == int(version):  # noqa: ASYNC110 - counted by the server
            await asyncio.sleep(0.001)
    assert not holding.done()
    assert server.objects[LEASE]["metadata"]["labels"] == {"x": "1"}
    holding.cancel()


async def test_a_deleted_lease_is_lost_at_once(api: KubeApi, server: FakeApiServer) -> None:
    """Whoever finds no Lease stops: any other may have made itself the leader."""
    leader = candidate(api, "one", Clock())
    await leader.acquire()
    server.remove(LEASE)
    with pytest.raises(LeaseLostError, match="nobody"):
        async with asyncio.timeout(5):
            await leader.hold()


async def test_a_leader_in_doubt_stops_at_the_deadline(server: FakeApiServer) -> None:
    """Whose Lease it is must be known within the renew deadline, however slow the answer."""

    class Silent(KubeApi):
        mute = False

        async def get(self, *place: Any, **more: Any) -> Any:
            if self.mute:
                await asyncio.Event().wait()
            return await super().get(*place, **more)

    timing = LeaseTiming(duration_seconds=15, renew_deadline_seconds=0.2, retry_seconds=0.005)
    async with Silent(Connection(server=server.url)) as api:
        leader = Leadership(api, namespace="ours", name="operator", identity="one", timing=timing)
        await leader.acquire()
        taken = server.objects[LEASE]
        server.put(LEASE, {**taken, "spec": {**taken["spec"], "holderIdentity": "two"}})
        api.mute = True
        with pytest.raises(LeaseLostError, match="in time"):
            async with asyncio.timeout(5):
                await leader.hold()


async def test_a_race_has_one_winner(api: KubeApi, server: FakeApiServer) -> None:
    """Of many that find the Lease expired at the same time exactly one leads."""
    clock = Clock()
    await candidate(api, "dead", clock).acquire()
    others = [await started(candidate(api, f"c{n}", clock), server) for n in range(5)]
    clock.now += 15
    async with asyncio.timeout(5):
        done, waiting = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        asked = server.calls("GET")
        while server.calls("GET") < asked + 20:  # noqa: ASYNC110 - counted by the server
            await asyncio.sleep(0.001)
    assert len(done) == 1
    assert [task for task in waiting if task.done()] == []
    for task in waiting:
        task.cancel()
