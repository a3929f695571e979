"""What two real Envoys do when a peer is declared anew, a gateway drains, or a router is away."""

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest

from heliostat_extproc.envoy import wire
from heliostat_extproc.envoy.peer_resources import Peering
from heliostat_extproc.envoy.wire import Entrance

from .conftest import eventually, free_port
from .regions import DONE, TOKEN, Pair, identity_of, running_pair

pytestmark = pytest.mark.gateway


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """Two regions that serve each other; a forwards what its clients ask to b."""
    with tempfile.TemporaryDirectory() as folder:
        async with running_pair(Path(folder)) as running:
            yield running


def changed(pair: Pair, what: str) -> Peering:
    """Declare b to a with another identity, or at an address where nothing is."""
    peering = pair.a.peering
    (peer,) = peering.peers
    if what == "identity":
        peer = replace(peer, identity=identity_of("b-new"))
    else:
        peer = replace(peer, addresses=(f"127.0.0.1:{free_port()}",))
    return replace(peering, peers=(peer,))


@pytest.mark.parametrize("what", ["identity", "address"])
async def test_a_peer_that_is_declared_anew_gets_nothing_by_open_connections(
    pair: Pair, what: str
) -> None:
    """What runs there runs to its end; what comes later needs the new identity and address."""
    stream = await pair.a.client.post(pair.a.url("stream"), data=b"{}")
    assert await stream.content.readany() == TOKEN
    assert (await pair.a.post())[1]["region"] == "b"
    pair.b.router.asked.clear()
    before = pair.a.peering
    await pair.a.publish(changed(pair, what))
    await pair.until_served_by("a")
    for _ in range(5):
        assert (await pair.a.post())[1]["region"] == "a"
    assert not pair.b.router.asked
    pair.b.engine.go_on.set()
    assert await stream.content.read() == DONE
    await pair.a.publish(before)
    await pair.until_served_by("b")


async def test_a_peer_that_comes_back_with_another_identity_is_another(pair: Pair) -> None:
    """While a request still runs there, the way to the one that has left stays as it was."""
    stream = await pair.a.client.post(pair.a.url("stream"), data=b"{}")
    await stream.content.readany()
    assert (await pair.a.post())[1]["region"] == "b"
    peering = pair.a.peering
    await pair.a.publish(replace(peering, links=(), allowed=frozenset()))
    await pair.a.publish(replace(changed(pair, "identity"), links=peering.links))
    await pair.until_served_by("a")
    pair.b.engine.go_on.set()
    assert await stream.content.read() == DONE
    assert (await pair.a.post())[1]["region"] == "a"


async def test_no_request_is_lost_while_addresses_change(pair: Pair) -> None:
    """Gateways come and go behind a region's name: each request is answered, mostly there."""
    stopping = asyncio.Event()

    async def load() -> list[tuple[int, dict[str, object]]]:
        answers = []
        while not stopping.is_set():
            answers.append(await pair.a.post())
        return answers

    clients = [asyncio.create_task(load()) for _ in range(3)]
    (peer,) = pair.a.peering.peers
    for _ in range(5):
        addresses = (*peer.addresses, f"127.0.0.1:{free_port()}")
        await pair.a.publish(replace(pair.a.peering, peers=(replace(peer, addresses=addresses),)))
        served = len(pair.b.router.asked)
        await eventually(lambda served=served: len(pair.b.router.asked) > served + 20)
    stopping.set()
    answers = [answer for client in clients for answer in await client]
    assert {status for status, _ in answers} == {200}
    assert len(pair.a.router.at(Entrance.RETURN)) < len(answers) / 4


async def test_a_stream_is_never_opened_under_an_older_declaration(pair: Pair) -> None:
    """A router that asks before Envoy knows the new identity is told that there is no way yet."""
    peering = pair.a.peering
    (link,) = peering.links
    async with links_channel(pair, "b") as channel:
        watch = channel.stream_stream("/heliostat.v1.State/Watch")
        first = watch(metadata=declared(link.declaration))
        await first.write(b"one")
        assert await first.read() == b"one"
        early = watch(metadata=declared("new"))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await asyncio.wait_for(early.read(), 5)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        moved = replace(link, identity=identity_of("b-new"), declaration="new")
        await pair.a.publish(replace(peering, links=(moved,)))
        tried = "cluster.link_b.ssl.fail_verify_san"
        async with asyncio.timeout(10):
            while not await pair.a.stat(tried):
                with pytest.raises(grpc.aio.AioRpcError):
                    await asyncio.wait_for(watch(metadata=declared("new")).read(), 5)
    assert len(pair.b.router.watched_by) == 1


def declared(declaration: str) -> tuple[tuple[str, str], ...]:
    """Name the declaration as the router does."""
    return ((wire.DECLARATION_HEADER, declaration),)


def links_channel(pair: Pair, destination: str) -> grpc.aio.Channel:
    """Connect as a's router does."""
    return grpc.aio.insecure_channel(
        f"unix:{pair.a.federation.links_socket}",
        options=[("grpc.default_authority", destination)],
    )


async def test_requests_come_back_to_a_gateway_that_drains(pair: Pair) -> None:
    """It takes no client any more, and still decides anew what a peer has not served."""
    waiting = asyncio.create_task(pair.a.post("hang"))
    await eventually(lambda: pair.b.engine.waiting)
    drain = asyncio.create_task(pair.a.envoy.drain())
    await eventually(lambda: _refuses(pair.a.port) and _refuses(pair.a.federation_port))
    pair.a.engine.go_on.set()
    await pair.b.stack.aclose()
    assert (await waiting)[1] == {"region": "a", "body_bytes": 2}
    assert len(pair.a.router.at(Entrance.RETURN)) == 1
    async with asyncio.timeout(10):
        await drain


def _refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def test_a_peer_is_served_by_nobody_while_the_router_is_away(pair: Pair) -> None:
    """Only the router knows who may be served with what: without it the request goes back."""
    await pair.b.server.stop(None)
    await pair.until_served_by("a")
    served = len(pair.a.router.at(Entrance.RETURN))
    assert (await pair.a.post())[1]["region"] == "a"
    assert len(pair.a.router.at(Entrance.RETURN)) == served + 1


async def test_where_a_request_may_be_served_is_not_guessed_while_the_router_is_away(
    pair: Pair,
) -> None:
    """Clients without a wish are served by the only pool, unless it has a residency rule."""
    await pair.a.server.stop(None)
    assert await pair.a.post() == (200, {"region": "a", "body_bytes": 2})
    status, answer = await pair.a.post(x_data_residency="eu")
    assert (status, answer["error"]["code"]) == (503, "router-unavailable")


async def test_a_pool_with_a_residency_rule_is_closed_while_the_router_is_away(pair: Pair) -> None:
    """Its rule may not allow this region: nobody but the router can tell."""
    await pair.a.publish(pair.a.peering, restricted=True)
    await pair.a.server.stop(None)
    async with asyncio.timeout(10):
        while (await pair.a.post())[0] != 503:
            pass


async def test_a_request_that_has_come_back_waits_for_a_busy_router(pair: Pair) -> None:
    """For longer than clients' requests do: nobody else knows the pool that it is for."""
    await pair.a.publish(pair.a.peering, pools=("p", "q"))
    pair.a.router.quick.clear()
    waiting = asyncio.create_task(pair.a.post("hang"))
    await eventually(lambda: pair.b.engine.waiting)
    pair.a.engine.go_on.set()
    await pair.b.stack.aclose()
    await eventually(lambda: pair.a.router.at(Entrance.RETURN))
    await asyncio.wait({waiting}, timeout=1.5)
    assert not waiting.done()
    pair.a.router.quick.set()
    assert await waiting == (200, {"region": "a", "body_bytes": 2})


async def test_a_request_that_has_come_back_goes_to_its_pool_without_a_router(pair: Pair) -> None:
    """The pool that the router had named serves it, and hears nothing of the peer's terms."""
    await pair.a.publish(pair.a.peering, pools=("p", "q"))
    waiting = asyncio.create_task(pair.a.post("hang"))
    await eventually(lambda: pair.b.engine.waiting)
    pair.a.engine.go_on.set()
    await pair.a.server.stop(None)
    await pair.b.stack.aclose()
    assert await waiting == (200, {"region": "a", "body_bytes": 2})
    told = {name.lower() for name in pair.a.engine.last_headers}
    assert {it for it in told if it.startswith("x-heliostat-")} == {wire.TICKET_HEADER}
