"""Regions believe certificates and nothing else, and take new ones without a pause."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from heliostat_federation.authority import identity_of
from heliostat_federation.clients import Clients
from heliostat_federation.federation import REGIONS, Federation
from heliostat_federation.region import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOT = 14


@pytest.fixture(autouse=True)
def sound_certificates(federation: Federation) -> Iterator[None]:
    """Each region has a good certificate again at the end."""
    yield
    for region in REGIONS:
        federation.certificates.issue(region)


async def test_certificates_rotate_under_load(federation: Federation) -> None:
    """All regions get new certificates, three times, while their gateways serve each other."""
    async with Clients(federation) as clients:
        clients.hold("us", HOT)
        await clients.ended(20)
        for _ in range(3):
            for region in REGIONS:
                federation.certificates.issue(region)
            await clients.ended(30)
    clients.expect_nothing_lost()
    await clients.expect_none_twice()
    served = (await clients.served_by())["us"]
    assert served["eu"] > 5 < served["asia"], served


async def test_the_authority_rotates_under_load(federation: Federation) -> None:
    """Trust the new one too, sign with it, forget the old one: no request is lost on the way."""
    certificates = federation.certificates
    old = certificates.newest
    async with Clients(federation) as clients:
        clients.hold("us", HOT)
        await clients.ended(20)
        certificates.new_authority()
        new = certificates.newest
        for signer, trusted in ((old, [old, new]), (new, [old, new]), (new, [new])):
            for region in REGIONS:
                certificates.issue(region, signer=signer, trusts=trusted)
            await clients.ended(30)
        for region in ("eu", "asia"):
            await federation["us"].until_peer(region, "Connected")
        before = await clients.served_by()
        await clients.ended(40)
    clients.expect_nothing_lost()
    await clients.expect_none_twice()
    after = await clients.served_by()
    assert after["us"]["eu"] > before["us"]["eu"], "eu serves us with the new authority"


async def test_an_expired_certificate_ends_the_trust(federation: Federation) -> None:
    """A gateway that starts with an expired certificate is no peer; a new one makes it one."""
    eu = federation["eu"]
    await eu.kill_gateway()
    long_ago = datetime.now(UTC) - timedelta(days=10)
    federation.certificates.issue("eu", lifetime=timedelta(days=1), at=long_ago)
    eu.start()
    await eu.until_ready()
    await federation["us"].until_peer("eu", "Unreachable")
    async with Clients(federation) as clients:
        clients.hold("us", HOT)
        clients.hold("eu", 1)
        await clients.ended(50)
        served = await clients.served_by()
        assert "eu" not in served["us"], served
        assert set(served["eu"]) == {"eu"}, served
        federation.certificates.issue("eu")
        await federation["us"].until_peer("eu", "Connected", within_seconds=30)
        await clients.ended(40)
    clients.expect_nothing_lost()
    assert (await clients.served_by())["us"]["eu"] > 0


async def test_a_wrong_identity_is_no_peer(federation: Federation) -> None:
    """A gateway with a good certificate of another name gets no request and serves none."""
    eu = federation["eu"]
    await eu.kill_gateway()
    federation.certificates.issue("eu", named="mallory")
    eu.start()
    await eu.until_ready()
    await federation["us"].until_peer("eu", "Unreachable")
    async with Clients(federation) as clients:
        clients.hold("us", HOT)
        clients.hold("eu", HOT)
        await clients.ended(60)
    clients.expect_nothing_lost()
    served = await clients.served_by()
    assert "eu" not in served["us"], served
    assert set(served["eu"]) == {"eu"}, served
    await eu.kill_gateway()
    federation.certificates.issue("eu")


async def test_a_peer_is_who_it_is_declared_to_be(federation: Federation) -> None:
    """A RegionPeer with asia's identity at eu's address is not reached; mended, it is."""
    wrong = replace(federation.declaration("eu"), identity=identity_of("nobody"))
    federation.declare("us", eu=wrong)
    await federation["us"].until_peer("eu", "Unreachable")
    async with Clients(federation) as clients:
        clients.hold("us", HOT)
        await clients.ended(40)
        assert "eu" not in (await clients.served_by())["us"]
        federation.declare("us")
        await federation["us"].until_peer("eu", "Connected", within_seconds=30)
        await clients.ended(40)
    clients.expect_nothing_lost()


async def test_a_peer_added_and_removed_under_load(federation: Federation) -> None:
    """A RegionPeer's manifest comes and goes while its region serves: nothing fails."""
    us = federation["us"]
    async with Clients(federation) as clients:
        clients.hold("us", HOT)
        await clients.ended(30)
        us.write_peers([federation.declaration("asia")])

        async def gone() -> bool:
            return not await us.peer("eu")

        await eventually(gone, "us does not know eu any more")
        await clients.ended(40)
        federation.declare("us")
        await us.until_peer("eu", "Connected", within_seconds=30)
        await clients.ended(40)
    clients.expect_nothing_lost()
    await clients.expect_none_twice()
    tally = await federation.tally()
    assert any("eu" in tally[r.request_id] for r in clients.requests[-60:] if r.text), "again"
