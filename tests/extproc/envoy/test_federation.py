"""What two real Envoys make of requests between regions."""

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import aiohttp
import grpc.aio
import pytest

from heliostat_extproc.envoy import wire
from heliostat_extproc.envoy.peer_resources import PeerRoute
from heliostat_extproc.envoy.wire import Entrance

from .conftest import DEADLINE_SECONDS, eventually, free_port
from .regions import (
    BODY_LIMIT_BYTES,
    DONE,
    TOKEN,
    Authority,
    Forward,
    Pair,
    Refuse,
    Serve,
    identity_of,
    running_pair,
)

pytestmark = pytest.mark.gateway


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """Two regions that serve each other; a forwards what its clients ask to b."""
    with tempfile.TemporaryDirectory() as folder:
        async with running_pair(Path(folder)) as running:
            yield running


async def test_a_peer_gets_the_request_its_terms_and_a_verified_identity(pair: Pair) -> None:
    """It comes in by the federation entrance, with what Envoy knows of the sender."""
    assert await pair.a.post() == (200, {"region": "b", "body_bytes": 2})
    (asked,) = pair.b.router.asked
    assert asked.entrance is Entrance.FEDERATION
    assert f"URI={identity_of('a')}" in asked.headers[wire.IDENTITY_HEADER]
    assert asked.headers[wire.ORIGIN_HEADER] == "router-1"
    assert asked.headers[wire.HOLD_HEADER] == "5.000"
    assert not {wire.CLUSTER_HEADER, wire.TICKET_HEADER, wire.POOL_HEADER} & asked.headers.keys()


async def test_clients_cannot_say_who_they_are_nor_where_they_go(pair: Pair) -> None:
    """Headers of the router's and a certificate's identity are gone at the client entrance."""
    forged = {
        "x_forwarded_client_cert": f"URI={identity_of('b')}",
        "x_heliostat_origin": "b/router-9",
        "x_heliostat_hold": "9",
        "x_heliostat_residency": "b",
        "x_heliostat_cluster": "peer:b",
        "x_heliostat_ticket": "9",
        "x_heliostat_entrance": "return",
    }
    pair.a.router.words[Entrance.CLIENTS] = Serve()
    assert (await pair.a.post(**forged))[1]["region"] == "a"
    (asked,) = pair.a.router.asked
    assert asked.entrance is Entrance.CLIENTS
    assert not {name.replace("_", "-") for name in forged} & asked.headers.keys()
    pair.a.router.words[Entrance.CLIENTS] = Forward("b")
    await pair.a.post(**forged)
    (asked,) = pair.b.router.asked
    assert identity_of("b") not in asked.headers[wire.IDENTITY_HEADER].partition("Hash=")[2]
    assert asked.headers[wire.ORIGIN_HEADER] == "router-1"
    assert "x-heliostat-entrance" not in asked.headers


@pytest.mark.parametrize("body_bytes", [2, BODY_LIMIT_BYTES])
async def test_what_a_peer_refuses_comes_back_whole(pair: Pair, body_bytes: int) -> None:
    """The same request, with its ticket, its pool and its body, is the router's again."""
    body = b"x" * body_bytes
    assert await pair.a.post(body=body) == (200, {"region": "b", "body_bytes": body_bytes})
    pair.b.router.words[Entrance.FEDERATION] = Refuse()
    assert await pair.a.post(body=body) == (200, {"region": "a", "body_bytes": body_bytes})
    (asked,) = pair.a.router.at(Entrance.RETURN)
    assert asked.headers[wire.TICKET_HEADER].isdecimal()
    assert asked.headers[wire.POOL_HEADER] == "p"


async def test_what_has_come_back_may_go_to_another_region(pair: Pair) -> None:
    """And come back from there too, until the router's own answer, which is final."""
    pair.b.router.words[Entrance.FEDERATION] = Refuse()
    pair.a.router.words[Entrance.RETURN] = Forward("b")
    request = asyncio.create_task(pair.a.post())
    await eventually(lambda: len(pair.b.router.asked) >= 3)
    pair.a.router.words[Entrance.RETURN] = Refuse()
    assert await request == (503, {"refused": True})
    asked = len(pair.a.router.at(Entrance.RETURN))
    assert asked == len(pair.b.router.asked)


async def test_a_refusal_after_the_return_is_not_tried_again(pair: Pair) -> None:
    """A 503 of the router's own goes to the client, once."""
    pair.b.router.words[Entrance.FEDERATION] = Refuse()
    pair.a.router.words[Entrance.RETURN] = Refuse()
    assert await pair.a.post() == (503, {"refused": True})
    assert len(pair.b.router.asked) == len(pair.a.router.at(Entrance.RETURN)) == 1


async def test_requests_come_back_from_a_gateway_that_is_gone(pair: Pair) -> None:
    """Both what was waiting there and what is sent there later."""
    waiting = asyncio.create_task(pair.a.post("hang"))
    await eventually(lambda: pair.b.engine.waiting)
    pair.a.engine.go_on.set()
    await pair.b.stack.aclose()
    assert (await waiting)[1]["region"] == "a"
    assert (await pair.a.post())[1]["region"] == "a"
    assert len(pair.a.router.at(Entrance.RETURN)) == 2


async def test_requests_come_back_while_no_address_is_known(pair: Pair) -> None:
    """A region whose name is not resolved yet is like one that is not there."""
    unresolved = PeerRoute("c", (), identity_of("c"))
    await pair.a.publish(replace(pair.a.peering, peers=(*pair.a.peering.peers, unresolved)))
    pair.a.router.words[Entrance.CLIENTS] = Forward("c")
    await pair.until_served_by("a")
    (peer,) = pair.b.peering.links
    resolved = replace(unresolved, addresses=peer.addresses, identity=identity_of("a"))
    await pair.a.publish(replace(pair.a.peering, peers=(*pair.a.peering.peers[:1], resolved)))
    await eventually_asked(pair)


async def eventually_asked(pair: Pair) -> None:
    """Wait until a's own federation entrance has been asked."""
    async with asyncio.timeout(10):
        while not pair.a.router.at(Entrance.FEDERATION):
            await pair.a.post()


async def test_a_dead_address_of_a_region_is_passed_over(pair: Pair) -> None:
    """Of several addresses the next is tried before a request comes back."""
    (peer,) = pair.a.peering.peers
    addresses = (f"127.0.0.1:{free_port()}", *peer.addresses)
    await pair.a.publish(replace(pair.a.peering, peers=(replace(peer, addresses=addresses),)))
    async with asyncio.timeout(DEADLINE_SECONDS):  # until Envoy has the new addresses in use
        while (await pair.a.post())[1]["region"] != "b":
            pass
    returned = len(pair.a.router.at(Entrance.RETURN))
    for _ in range(10):
        assert (await pair.a.post())[1]["region"] == "b"
    assert len(pair.a.router.at(Entrance.RETURN)) == returned


async def test_an_unreachable_region_gives_back_what_it_has_at_once(pair: Pair) -> None:
    """Requests without an answer return within 0.3 s, streams are cut, and later ones go on."""
    clock = asyncio.get_running_loop().time
    waiting = asyncio.create_task(pair.a.post("hang"))
    stream = await pair.a.client.post(pair.a.url("stream"), data=b"{}")
    assert await stream.content.readany() == TOKEN
    await eventually(lambda: pair.b.engine.waiting == 2)
    marked_at = clock()
    pair.a.health.set_reachable("b", False)
    await eventually(lambda: pair.a.engine.waiting == 1)
    returned_seconds = clock() - marked_at
    await eventually(lambda: pair.b.engine.aborted == 2)
    cut_seconds = clock() - marked_at
    pair.a.engine.go_on.set()
    assert (await waiting)[1]["region"] == "a"
    with pytest.raises(aiohttp.ClientPayloadError):
        await stream.content.read()
    assert (await pair.a.post())[1]["region"] == "a"
    pair.a.health.set_reachable("b", True)
    await pair.until_served_by("b")
    assert max(returned_seconds, cut_seconds) < 0.3


async def test_a_router_that_is_away_cuts_nothing(pair: Pair) -> None:
    """Only its word that a region is unreachable counts, not that it says nothing."""
    stream = await pair.a.client.post(pair.a.url("stream"), data=b"{}")
    await stream.content.readany()
    pair.a.health.stop()
    await pair.a.server.stop(None)
    failures = "cluster.connection_b.health_check.network_failure"
    async with asyncio.timeout(10):
        while await pair.a.stat(failures) < 5:
            pass
    assert pair.b.engine.waiting == 1
    pair.b.engine.go_on.set()
    assert await stream.content.read() == DONE


async def test_a_stream_passes_token_by_token_and_ends_with_its_client(pair: Pair) -> None:
    """Each event arrives as it is written; a client that leaves is noticed by the engine."""
    async with pair.a.client.post(pair.a.url("stream"), data=b"{}") as response:
        assert await response.content.readany() == TOKEN
        pair.b.engine.go_on.set()
        assert await response.content.read() == DONE
    pair.b.engine.go_on.clear()
    response = await pair.a.client.post(pair.a.url("stream"), data=b"{}")
    await response.content.readany()
    response.close()
    await eventually(lambda: pair.b.engine.aborted)
    assert not pair.a.router.at(Entrance.RETURN)


@pytest.mark.parametrize("wrong", ["identity", "authority", "expired"])
@pytest.mark.parametrize("whose", ["a", "b"])
async def test_nobody_is_served_by_or_serves_an_impostor(
    pair: Pair, wrong: str, whose: str
) -> None:
    """A wrong identity, an unknown authority and an expired certificate are refused both ways."""
    impostor = pair.a if whose == "a" else pair.b
    authority = Authority() if wrong == "authority" else pair.authority
    identity = identity_of("other" if wrong == "identity" else whose)
    certificate = authority.issue(
        identity, days=-1 if wrong == "expired" else 7, authority=pair.authority.pem
    )
    await impostor.publish(replace(impostor.peering, certificate=certificate))
    pair.a.health.set_reachable("b", False)  # ends the connections that are there
    await pair.until_served_by("a")
    pair.a.health.set_reachable("b", True)
    await eventually_connects(pair)
    for _ in range(5):
        assert (await pair.a.post())[1]["region"] == "a"
    assert not pair.b.router.asked


async def eventually_connects(pair: Pair) -> None:
    """Wait until a tries to reach b again."""
    before = await pair.a.stat("cluster.connection_b.upstream_cx_total")
    async with asyncio.timeout(10):
        while await pair.a.stat("cluster.connection_b.upstream_cx_total") == before:
            await pair.a.post()


async def test_nobody_comes_in_without_a_certificate(pair: Pair) -> None:
    """A connection that shows none ends before it can ask anything."""
    context = ssl.create_default_context(cadata=pair.authority.pem.decode())
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("127.0.0.1", pair.b.federation_port, ssl=context)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
    with suppress(ssl.SSLError, ConnectionError):
        async with asyncio.timeout(5):
            while await reader.read(65536):
                pass
    writer.close()
    assert not pair.b.router.asked


async def test_clients_are_served_without_a_region_certificate(tmp_path: Path) -> None:
    """Federation waits for one; the gateway does not, and its port is closed to everyone."""
    pair = Pair(tmp_path)
    try:
        await pair.a.start()
        certificate = pair.authority.issue(identity_of("a"))
        peering = pair.peering(pair.a, pair.b, certificate)
        await pair.a.publish(replace(peering, certificate=None))
        assert (await pair.a.post())[1]["region"] == "a"
        context = ssl.create_default_context(cadata=pair.authority.pem.decode())
        context.check_hostname = False
        port = pair.a.federation_port
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", port, ssl=context)
        await pair.a.publish(peering)
        async with asyncio.timeout(10):
            while not await _shakes_hands(port, context):
                pass
    finally:
        await pair.close()


async def _shakes_hands(port: int, context: ssl.SSLContext) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    except (ssl.SSLError, ConnectionError):
        return False
    writer.close()
    return True


async def test_certificates_and_authorities_change_under_load(pair: Pair) -> None:
    """New certificates, then a new authority step by step: no request fails or comes back."""
    stopping = asyncio.Event()

    async def load() -> list[object]:
        answers: list[object] = []
        while not stopping.is_set():
            answers.append(await pair.a.post())
        return answers

    async def take(authority: Authority, trusted: bytes) -> None:
        for region in (pair.a, pair.b):
            certificate = authority.issue(identity_of(region.name), authority=trusted)
            await region.publish(replace(region.peering, certificate=certificate))
        # Each connection is made anew, with what is there now.
        served = len(pair.b.router.asked)
        await eventually(lambda: len(pair.b.router.asked) > served + 10)

    stream = await pair.a.client.post(pair.a.url("stream"), data=b"{}")
    await stream.content.readany()
    clients = [asyncio.create_task(load()) for _ in range(3)]
    old, new = pair.authority, Authority()
    await take(old, old.pem)
    await take(old, old.pem + new.pem)
    await take(new, old.pem + new.pem)
    await take(new, new.pem)
    stopping.set()
    answers = [answer for client in clients for answer in await client]
    assert len(answers) > 40
    assert [it for it in answers if it != (200, {"region": "b", "body_bytes": 2})] == []
    assert not pair.a.router.at(Entrance.RETURN)
    pair.b.engine.go_on.set()
    assert await stream.content.read() == DONE


async def test_peers_that_come_and_go_disturb_nobody(pair: Pair) -> None:
    """Other regions, other addresses and other identities leave running streams alone."""
    stream = await pair.a.client.post(pair.a.url("stream"), data=b"{}")
    await stream.content.readany()
    peering = pair.a.peering
    others = tuple(
        PeerRoute(f"r{number}", (f"127.0.0.1:{free_port()}",), identity_of(f"r{number}"))
        for number in range(5)
    )
    allowed = peering.allowed | {it.identity for it in others}
    await pair.a.publish(replace(peering, peers=(*peering.peers, *others), allowed=allowed))
    for region in (pair.a, pair.b):
        added = replace(region.peering, allowed=region.peering.allowed | {identity_of("r9")})
        await region.publish(added)
    pair.a.router.words[Entrance.CLIENTS] = Forward("r3")
    await pair.until_served_by("a")
    await pair.a.publish(peering)
    pair.a.router.words[Entrance.CLIENTS] = Forward("b")
    await pair.until_served_by("b")
    assert pair.b.engine.aborted == 0
    pair.b.engine.go_on.set()
    assert await stream.content.read() == DONE


async def test_state_streams_run_from_router_to_router(pair: Pair) -> None:
    """Through both Envoys, messages both ways and the end with its status; nobody is asked."""
    async with links_channel(pair, "b") as channel:
        call = channel.stream_stream("/heliostat.v1.State/Watch")(metadata=FIRST)
        for message in (b"one", b"two"):
            await call.write(message)
            assert await call.read() == message
        assert await pair.b.envoy.active_requests() == 0
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        assert dict(await call.trailing_metadata())["watched"] == "to-the-end"
    (identity,) = pair.b.router.watched_by
    assert f"URI={identity_of('a')}" in identity
    assert not pair.b.router.asked


async def test_state_streams_to_nowhere_fail_at_once(pair: Pair) -> None:
    """A destination that Envoy does not know is unavailable, not awaited."""
    async with links_channel(pair, "nowhere") as channel:
        call = channel.stream_stream("/heliostat.v1.State/Watch")()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await asyncio.wait_for(call.read(), 5)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE


FIRST = ((wire.DECLARATION_HEADER, "first"),)


def links_channel(pair: Pair, destination: str) -> grpc.aio.Channel:
    """Connect as a's router does."""
    return grpc.aio.insecure_channel(
        f"unix:{pair.a.federation.links_socket}",
        options=[("grpc.default_authority", destination)],
    )


async def test_clients_do_not_reach_the_state_service(pair: Pair) -> None:
    """Its path leads to the router from the federation entrance alone."""
    pair.b.router.words[Entrance.CLIENTS] = Refuse(404)
    url = f"http://127.0.0.1:{pair.b.port}/heliostat.v1.State/Watch"
    async with pair.b.client.post(url, data=b"\0\0\0\0\0") as response:
        assert response.status == 404
    assert not pair.b.router.watched_by
