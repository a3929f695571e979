"""Requests stay where they may be, whatever the load is."""

import pytest

from heliostat_federation.clients import Clients, Ending
from heliostat_federation.federation import Federation
from heliostat_federation.region import DEAD_ENGINES

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_clients_residency_is_kept_under_load(federation: Federation) -> None:
    """What may be in us and the group of eu overflows to eu and never to asia."""
    async with Clients(federation, headers={"x-data-residency": "us, gdpr"}) as clients:
        clients.hold("us", 14)
        await clients.ended(60)
    clients.expect_nothing_lost()
    await clients.expect_none_twice()
    served = (await clients.served_by())["us"]
    assert set(served) == {"us", "eu"}, served


async def test_a_pools_residency_is_kept_without_engines(federation: Federation) -> None:
    """A pool that may be served in us and asia goes to asia when us has no engine, never to eu."""
    us = federation["us"]
    us.write_pool(endpoints=DEAD_ENGINES, federation={"residency": ["us", "apac"]})
    async with Clients(federation) as clients:
        clients.hold("us", 8)
        await clients.ended(10)  # by then the manifest is read
        read_from = len(clients.requests)
        await clients.ended(30)
    later = [it for it in clients.requests[read_from:] if it.ending is Ending.SERVED]
    tally = await federation.tally()
    assert len(later) > 15, clients.summary()
    assert all(set(tally[it.request_id]) == {"asia"} for it in later)


async def test_a_request_that_may_not_be_here_is_refused(federation: Federation) -> None:
    """A client that asks a gateway where its request may not be served is told so."""
    async with Clients(federation, headers={"x-data-residency": "eu"}) as clients:
        request = await clients.ask("us")
    assert request.ending is Ending.REFUSED
    assert request.headers["x-heliostat-reason"] == "residency", request.detail


async def test_a_pool_that_does_not_send_keeps_its_requests(federation: Federation) -> None:
    """Mode Serve: an overloaded pool's requests wait here, and others' are served."""
    federation["us"].write_pool(federation={"mode": "Serve"})
    async with Clients(federation) as clients:
        clients.hold("us", 14)
        await clients.ended(20)  # by then the manifest is read
        read_from = len(clients.requests)
        await clients.ended(40)
    clients.expect_nothing_lost()
    tally = await federation.tally()
    assert all(set(tally[it.request_id]) == {"us"} for it in clients.requests[read_from:])


async def test_a_pool_that_does_not_serve_gets_nothing(federation: Federation) -> None:
    """Mode Send at eu: requests of us overflow to asia alone, and none is refused on the way."""
    federation["eu"].write_pool(federation={"mode": "Send"})
    async with Clients(federation) as clients:
        clients.hold("us", 14)
        await clients.ended(60)
    clients.expect_nothing_lost()
    served = (await clients.served_by())["us"]
    assert "eu" not in served
    assert served["asia"] > 5, served
