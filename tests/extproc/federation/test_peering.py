"""Routers that watch each other through a real Envoy: what their cores are told, and when."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import grpc
import hpack
import pytest
from structlog.testing import capture_logs

from heliostat_extproc.discovery.peering import DeclaredPeer
from heliostat_extproc.federation.peering import Federation
from heliostat_extproc.federation.protocol import WATCH_PATH
from heliostat_extproc.federation.reports import LinkReason, LinkState
from heliostat_extproc.federation.slots import OwnState, PoolState
from heliostat_extproc.federation.state_pb2 import Hello, WatchRequest, WatchResponse
from heliostat_extproc.grpc_streams import frames
from heliostat_routing.capacity import PoolCapacity
from heliostat_routing.events import (
    PeerLost,
    PeerSettings,
    PeersUpdated,
    RegionStateReceived,
    RequestArrived,
    RequestFinished,
    ScrapeFailed,
    SiblingGone,
    SiblingQueue,
    SiblingQueues,
    SiblingSent,
    SiblingTold,
)

from .conftest import moved_peer, peer

pytestmark = pytest.mark.gateway

CAPACITY = PoolCapacity(3, 5, 7, 0.25, 0.5, 1.5, 8000.0, 100_000)
ASIA_PEER = DeclaredPeer(PeerSettings("asia", 0.1), "127.0.0.1:1", "spiffe://test/region/asia")
DETECTED_SECONDS = 0.7
SENT = SiblingSent("us-2", RequestArrived(1, "p", (1, 2), 1024), "10.0.0.1:8000", 0.5)
FINISHED = SiblingTold("us-2", RequestFinished(1))


async def eventually(condition: Any, seconds: float = 10.0) -> None:
    """Wait until the condition holds; fail at the deadline."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def two_regions(regions: Any) -> None:
    """Start us-1 and asia-1 as peers of each other."""
    await regions["us-1"].start(peers=["asia"])
    await regions["asia-1"].start(peers=["us"])
    await eventually(lambda: regions["us-1"].told(RegionStateReceived))


async def two_siblings(regions: Any) -> None:
    """Start us-1 and us-2 as siblings."""
    await regions["us-2"].start(siblings=["us-1"])
    await regions["us-1"].start(siblings=["us-2"])
    await eventually(lambda: len(regions["us-1"].federation.live_routers()) == 2)


async def test_a_region_hears_what_the_other_says(regions: Any) -> None:
    """A state comes as it was told, under the pool's name here, with this router's own count."""
    regions["asia-1"].own = OwnState(
        {
            "llama": PoolState(replace(CAPACITY, adapters=frozenset({"sql"}))),
            "unknown": PoolState(CAPACITY),
            "leaving": PoolState(CAPACITY, draining=True),
        },
        heads=(7, 8),
        received={"us/us-1": 4, "us/other": 9},
    )
    await two_regions(regions)
    assert regions["us-1"].events[0][1].__class__ is PeersUpdated
    state = regions["us-1"].told(RegionStateReceived)[-1]
    assert (state.region, state.writer, state.received) == ("asia", "asia-1", 4)
    assert state.capacities == (("pool-llama", replace(CAPACITY, adapters=frozenset({"sql"}))),)
    assert state.heads == (7, 8)
    assert state.round_trip_seconds < 0.1
    await eventually(lambda: regions["us-1"].reachability == [("asia", True)])
    (report,) = regions["us-1"].federation.reports()
    assert (report.state, report.reason) == (LinkState.CONNECTED, LinkReason.HEARD)
    assert (report.writers, [it.pool for it in report.pools]) == (("asia-1",), ["llama"])


async def test_a_model_that_comes_to_be_served_here_is_heard_of(regions: Any) -> None:
    """What a region said of it before is asked for again, once, and the region is never lost."""
    regions["asia-1"].own = OwnState(
        {"llama": PoolState(CAPACITY), "unknown": PoolState(replace(CAPACITY, free=1))}
    )
    await two_regions(regions)
    router = regions["us-1"]
    router.unknown.clear()
    router.federation.apply([ASIA_PEER], [])
    router.federation.apply([ASIA_PEER], [])
    await eventually(lambda: len(_states(router)[-1].capacities) == 2)
    assert dict(_states(router)[-1].capacities)["pool-unknown"].free == 1
    assert not router.told(PeerLost)


async def test_a_change_is_heard_soon_and_what_holds_is_repeated(regions: Any) -> None:
    """The core believes no state for long, so it is told again what still holds."""
    await two_regions(regions)
    router = regions["us-1"]
    regions["asia-1"].own = OwnState({"llama": PoolState(replace(CAPACITY, free=1))})
    await eventually(
        lambda: router.told(RegionStateReceived)[-1].capacities[0][1].free == 1, seconds=0.5
    )
    router.clear()
    await eventually(lambda: len(router.told(RegionStateReceived)) >= 3, seconds=1.0)


async def test_a_region_that_drains_is_sent_nothing_new_soon(regions: Any) -> None:
    """The core hears within 0.2 s that no pool there takes anything, and loses no region."""
    await two_regions(regions)
    teller, router = regions["asia-1"], regions["us-1"]
    teller.own = OwnState({"llama": PoolState(CAPACITY, draining=True)})
    teller.federation.tell()
    await eventually(lambda: not _states(router)[-1].capacities, seconds=0.2)
    assert not router.told(PeerLost)


async def test_nobody_is_told_of_what_nobody_watches(regions: Any) -> None:
    """A router looks at its own state once it is watched, and then before it first tells it."""
    teller, watcher = regions["asia-1"], regions["us-1"]
    await teller.start(peers=["us"])
    await eventually(lambda: teller.told(PeerLost))
    assert teller.looks == 0
    teller.own = OwnState({"llama": PoolState(replace(CAPACITY, free=1))}, received={"us/us-1": 3})
    assert teller.federation.reports()[0].received == 3
    await watcher.start(peers=["asia"])
    await eventually(lambda: watcher.told(RegionStateReceived))
    assert _states(watcher)[0].capacities[0][1].free == 1
    await eventually(lambda: teller.looks > 3)
    await watcher.stop()
    await eventually(lambda: not teller.federation._server.is_watched)
    looks, loop = teller.looks, asyncio.get_running_loop()
    since = loop.time()
    await eventually(lambda: loop.time() > since + 0.5)
    assert teller.looks == looks


async def test_a_silent_region_is_lost_in_time_and_comes_back(regions: Any) -> None:
    """Nothing breaks, nothing comes: the core hears of it within 0.7 s, and of the return."""
    await two_regions(regions)
    router, loop = regions["us-1"], asyncio.get_running_loop()
    regions.ways["asia"].open.clear()
    since = loop.time()
    await eventually(lambda: router.told(PeerLost))
    assert router.events[-1][0] - since < DETECTED_SECONDS
    await eventually(lambda: router.reachability[-1] == ("asia", False), seconds=0.2)
    assert not router.federation.is_reachable("asia")
    (report,) = router.federation.reports()
    assert (report.state, report.reason) == (LinkState.UNREACHABLE, LinkReason.SILENT)
    assert (report.writers, report.pools) == ((), ())
    router.clear()
    regions.ways["asia"].open.set()
    await eventually(lambda: router.told(RegionStateReceived))
    assert router.federation.is_reachable("asia")


async def test_a_stream_that_breaks_loses_no_region(regions: Any) -> None:
    """A connection that ends is made anew before the region counts as silent."""
    await two_regions(regions)
    router = regions["us-1"]
    regions.ways["asia"].cut()
    router.clear()
    regions["asia-1"].own = OwnState({"llama": PoolState(replace(CAPACITY, free=1))})
    await eventually(lambda: any(e.capacities[0][1].free == 1 for e in _states(router)))
    assert not router.told(PeerLost)


async def test_a_region_that_is_declared_anew_is_heard_anew(regions: Any) -> None:
    """Its stream ends although nothing breaks: the next one goes where it is declared now."""
    await two_regions(regions)
    router = regions["us-1"]
    router.federation.apply([moved_peer("asia")], [])
    await eventually(lambda: router.federation.reports()[0].reason is LinkReason.WRONG_PLACE)
    router.federation.apply([peer("asia")], [])
    await eventually(lambda: router.federation.reports()[0].reason is LinkReason.HEARD)


async def test_a_restarted_router_is_heard_again(regions: Any) -> None:
    """Its new epoch replaces what the one before has said."""
    await two_regions(regions)
    router = regions["us-1"]
    await regions["asia-1"].stop()
    await eventually(lambda: router.told(PeerLost))
    regions["asia-1"].own = OwnState({"llama": PoolState(replace(CAPACITY, free=1))})
    router.clear()
    await regions["asia-1"].start(peers=["us"], epoch=2)
    await eventually(lambda: _states(router))
    assert _states(router)[0].capacities[0][1].free == 1


async def test_the_round_trip_is_measured(regions: Any) -> None:
    """It is that of the way, both directions."""
    regions.ways["asia"].delay_seconds = 0.06
    await two_regions(regions)
    await eventually(
        lambda: 0.12 <= (regions["us-1"].federation.reports()[0].round_trip_seconds or 0) < 0.2
    )


async def test_a_region_tells_of_all_its_routers(regions: Any) -> None:
    """One stream to any of them brings what each has said, until it is gone."""
    await regions["us-2"].start(siblings=["us-1"], peers=["asia"])
    await regions["us-1"].start(siblings=["us-2"], peers=["asia"])
    await regions["asia-1"].start(peers=["us"])
    router = regions["asia-1"]
    await eventually(lambda: router.federation.reports()[0].writers == ("us-1", "us-2"))
    await regions["us-2"].stop()
    await eventually(lambda: router.federation.reports()[0].writers == ("us-1",))
    assert not router.told(PeerLost)


async def test_a_dropped_peer_is_neither_heard_nor_served(regions: Any) -> None:
    """Once a region declares another no more, neither watches the other; what runs is not cut."""
    await two_regions(regions)
    regions["us-1"].federation.apply([], [])
    await eventually(lambda: regions["asia-1"].told(PeerLost))
    (report,) = regions["asia-1"].federation.reports()
    assert report.reason is LinkReason.IDENTITY_REFUSED
    for name, other in (("us-1", "asia"), ("asia-1", "us")):
        assert (other, False) not in regions[name].reachability


async def test_two_routers_of_one_name_are_warned_of_once_each(regions: Any) -> None:
    """Each replaces the other's stream again and again, and no identity is refused."""
    router, loop = regions["us-1"], asyncio.get_running_loop()
    await two_regions(regions)  # whose first calls may come before the other listens
    with capture_logs() as lines:
        namesake = Federation(
            router.region,
            router.links_socket,
            router,
            lambda _event: None,
            identity=lambda: None,
            pool_of_model=lambda _model: None,
        )
        task = asyncio.create_task(namesake.run())
        namesake.apply([peer("asia")], [])
        await eventually(lambda: len(_warned(lines)) == 2)
        since = loop.time()
        await eventually(lambda: loop.time() > since + 0.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    for line in _warned(lines):
        assert line["reason"] == "Replaced"
        assert line["hint"] == "do two routers share --router-name us-1?"
    assert len(_warned(lines)) == 2


async def test_a_region_that_nobody_reaches_is_lost_soon(regions: Any) -> None:
    """It may be reachable until that is known to be wrong: a restart must cut nothing."""
    router = regions["us-1"]
    with capture_logs() as lines:
        await router.start(peers=["asia"])
        assert router.federation.is_reachable("asia")
        await eventually(lambda: router.told(PeerLost))
    (report,) = router.federation.reports()
    assert report.reason is LinkReason.CONNECTION_FAILED
    assert {line["log_level"] for line in _ended(lines)} == {"debug"}
    (lost,) = [line for line in lines if line["event"] == "link lost"]
    assert (lost["reason"], bool(lost["detail"])) == ("ConnectionFailed", True)


async def test_who_answers_for_another_is_not_listened_to(regions: Any) -> None:
    """A stream that leads to the wrong region brings nothing."""
    await regions["us-1"].start(peers=["asia"])
    await regions["asia-1"].start(peers=["us", "wrong"])
    router = regions["asia-1"]

    def reason() -> LinkReason:
        return next(it for it in router.federation.reports() if it.region == "wrong").reason

    await eventually(lambda: reason() is LinkReason.WRONG_PLACE)
    assert not [it for it in _states(router) if it.region == "wrong"]


# Siblings


async def test_a_sibling_hears_everything_then_each_event(regions: Any) -> None:
    """It begins with what is open, and goes on in order."""
    regions["us-2"].world = [SENT]
    await two_siblings(regions)
    await eventually(lambda: regions["us-1"].told(SiblingSent) == [SENT])
    for number in range(100):
        regions["us-2"].federation.relay(ScrapeFailed(f"e{number}"))
    regions["us-2"].federation.relay(FINISHED)
    await eventually(lambda: regions["us-1"].told(SiblingTold) == [FINISHED], seconds=0.5)
    expected = [ScrapeFailed(f"e{number}") for number in range(100)]
    assert regions["us-1"].told(ScrapeFailed) == expected


async def test_queues_are_asked_for_once_for_each_batch(regions: Any) -> None:
    """However often they may have changed until it goes, and also with nothing else to tell."""
    teller, hearer = regions["us-2"], regions["us-1"]
    teller.world = [SENT]
    await two_siblings(regions)
    await eventually(lambda: hearer.told(SiblingSent))
    changes = [SiblingQueues("us-2", (SiblingQueue("p", n, 1.0),)) for n in (2, 1)]
    teller.queued = list(changes)
    for _ in range(100):
        teller.federation.relay_queues()
    await eventually(lambda: hearer.told(SiblingQueues))
    assert teller.queued == changes[:1]
    teller.federation.relay(FINISHED)
    await eventually(lambda: len(hearer.told(SiblingQueues)) == 2)
    assert not teller.queued


async def test_a_sibling_that_breaks_is_gone_at_once(regions: Any) -> None:
    """Its requests are over before any silence, and come again with its next stream."""
    regions["us-2"].world = [SENT]
    await two_siblings(regions)
    router, loop = regions["us-1"], asyncio.get_running_loop()
    await eventually(lambda: router.told(SiblingSent))
    router.clear()
    since = loop.time()
    regions.ways["us-2"].cut()
    await eventually(lambda: router.told(SiblingGone) == [SiblingGone("us-2")])
    assert router.events[-1][0] - since < 0.2
    await eventually(lambda: router.told(SiblingSent) == [SENT])


async def test_a_silent_sibling_is_gone_in_time(regions: Any) -> None:
    """A sibling that hangs holds its requests for 0.7 s at most."""
    regions["us-2"].world = [SENT]
    await two_siblings(regions)
    router, loop = regions["us-1"], asyncio.get_running_loop()
    await eventually(lambda: router.told(SiblingSent))
    regions.ways["us-2"].open.clear()
    since = loop.time()
    await eventually(lambda: router.told(SiblingGone))
    assert router.events[-1][0] - since < DETECTED_SECONDS
    assert router.federation.live_routers() == ("us-1",)
    router.clear()
    regions.ways["us-2"].open.set()
    await eventually(lambda: router.told(SiblingSent) == [SENT])
    assert router.federation.live_routers() == ("us-1", "us-2")


# Who may watch


async def watch(
    regions: Any, hello: Hello, *, metadata: tuple[tuple[str, str], ...] = (), path: str = "asia-1"
) -> grpc.StatusCode | WatchResponse:
    """Open a stream right at us-1's socket; return its first word, or why there is none."""
    async with grpc.aio.insecure_channel(f"unix:{regions['us-1'].socket}") as channel:
        call = channel.stream_stream(WATCH_PATH, None, None)(None, metadata=metadata)
        try:
            await call.write(WatchRequest(hello=hello, ping=1).SerializeToString())
            answer = await call.read()
        except (grpc.RpcError, asyncio.InvalidStateError):
            answer = grpc.aio.EOF
        if isinstance(answer, bytes):
            return WatchResponse.FromString(answer)
        return await call.code()


def certificate(uri: str) -> tuple[tuple[str, str], ...]:
    return (("x-forwarded-client-cert", f"Hash=ab;URI={uri}"),)


ASIA = certificate("spiffe://test/region/asia")
US = certificate("spiffe://test/region/us")


@pytest.mark.parametrize(
    ("metadata", "hello"),
    [
        ((), Hello(region="asia", router="r")),
        (certificate("spiffe://test/region/eu"), Hello(region="eu", router="r")),
        (certificate("spiffe://test/region/eu"), Hello(region="asia", router="r")),
        (ASIA, Hello(region="us", router="r")),
        (US, Hello(region="asia", router="r")),
        (ASIA, Hello(region="asia", router="")),
        (ASIA, Hello(region="asia", router="a\nb")),
        (ASIA + ASIA, Hello(region="asia", router="r")),
    ],
)
async def test_who_is_no_peer_may_not_watch(
    regions: Any, metadata: tuple[tuple[str, str], ...], hello: Hello
) -> None:
    """The verified identity decides, and it speaks for its own region alone."""
    await regions["us-1"].start(peers=["asia"])
    answer = await watch(regions, hello, metadata=metadata)
    assert answer is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("version", [0, 1, 99])
async def test_a_peer_of_any_version_may_watch(regions: Any, version: int) -> None:
    """Both ends speak what both know."""
    await regions["us-1"].start(peers=["asia"])
    hello = Hello(version=version, region="asia", router="r")
    answer = await watch(regions, hello, metadata=ASIA)
    assert isinstance(answer, WatchResponse)
    assert (answer.hello.region, answer.hello.router, answer.pong) == ("us", "us-1", 1)


async def test_watchers_of_one_identity_are_bounded(regions: Any) -> None:
    """One that is too many is refused; a router that comes again replaces its former stream."""
    await regions["us-1"].start(peers=["asia"])
    async with grpc.aio.insecure_channel(f"unix:{regions['us-1'].socket}") as channel:
        calls = []
        for number in range(64):
            call = channel.stream_stream(WATCH_PATH, None, None)(None, metadata=ASIA)
            hello = Hello(region="asia", router=f"r{number}")
            await call.write(WatchRequest(hello=hello).SerializeToString())
            assert isinstance(await call.read(), bytes)
            calls.append(call)
        refused = await watch(regions, Hello(region="asia", router="one-more"), metadata=ASIA)
        assert refused is grpc.StatusCode.RESOURCE_EXHAUSTED
        again = await watch(regions, Hello(region="asia", router="r5"), metadata=ASIA)
        assert isinstance(again, WatchResponse)
        assert await calls[5].code() is grpc.StatusCode.ABORTED


async def test_streams_that_were_replaced_and_do_not_end_are_bounded(regions: Any) -> None:
    """A router that comes again and again, and does not read what it is told, is refused once it
    has as many such streams as it may have watchers."""
    await regions["us-1"].start(peers=["asia"])
    reader, writer = await asyncio.open_unix_connection(regions["us-1"].socket)
    encoder, kinds, flag = hpack.Encoder(), frames.Kind, frames.Flag
    writer.write(frames.PREFACE + frames.write_settings({frames.Setting.INITIAL_WINDOW_SIZE: 0}))
    hello = Hello(region="asia", router="r")
    message = WatchRequest(hello=hello, ping=1).SerializeToString()
    for stream in range(1, 2 * 129, 2):
        block = encoder.encode([(":method", "POST"), (":path", WATCH_PATH), *ASIA])
        writer.write(frames.write_frame(kinds.HEADERS, flag.END_HEADERS, stream, block))
        data = b"\0" + len(message).to_bytes(4) + message
        writer.write(frames.write_frame(kinds.DATA, 0, stream, data))
    ended: list[tuple[int, str]] = []
    decoder = hpack.Decoder()
    async with asyncio.timeout(10):
        while not ended:
            head = await reader.readexactly(frames.HEAD_BYTES)
            length, kind, flags, stream = frames.read_head(head, 0)
            payload = await reader.readexactly(length)
            if kind == kinds.HEADERS and flags & flag.END_STREAM:
                ended.append((stream, dict(decoder.decode(payload))["grpc-status"]))
    writer.close()
    assert ended == [(257, str(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]))]


async def test_a_watcher_that_breaks_the_protocol_is_told_so(regions: Any) -> None:
    """A request that is too large ends its stream with a status."""
    await regions["us-1"].start(peers=["asia"])
    async with grpc.aio.insecure_channel(f"unix:{regions['us-1'].socket}") as channel:
        call = channel.stream_stream(WATCH_PATH, None, None)(None, metadata=ASIA)
        hello = Hello(region="asia", router="r")
        await call.write(WatchRequest(hello=hello).SerializeToString())
        assert isinstance(await call.read(), bytes)
        await call.write(b"x" * 5000)
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_flood_of_pings_is_not_read(regions: Any) -> None:
    """A watcher gets no more echoes than it may ask for."""
    await regions["us-1"].start(peers=["asia"])
    async with grpc.aio.insecure_channel(f"unix:{regions['us-1'].socket}") as channel:
        call = channel.stream_stream(WATCH_PATH, None, None)(None, metadata=ASIA)
        hello = Hello(region="asia", router="r")
        await call.write(WatchRequest(hello=hello, ping=1).SerializeToString())

        async def flood() -> None:
            for number in range(2, 5000):
                await call.write(WatchRequest(ping=number).SerializeToString())

        flooding = asyncio.create_task(flood())
        newest = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while isinstance(answer := await call.read(), bytes):
                    newest = max(newest, WatchResponse.FromString(answer).pong)
        flooding.cancel()
        assert 1 < newest < 400


async def test_the_state_comes_with_echoes_and_not_with_each(regions: Any) -> None:
    """However often a watcher asks, it is told of the state 20 times a second at most."""
    teller, loop = regions["us-1"], asyncio.get_running_loop()
    await teller.start(peers=["asia"])
    async with grpc.aio.insecure_channel(f"unix:{teller.socket}") as channel:
        call = channel.stream_stream(WATCH_PATH, None, None)(None, metadata=ASIA)
        hello = Hello(region="asia", router="r")
        since, asked, told = loop.time(), 0, 0
        while loop.time() < since + 1.0:
            asked += 1
            teller.own = OwnState({"llama": PoolState(replace(CAPACITY, queued=asked))})
            ping = WatchRequest(hello=hello, ping=asked)
            await call.write(ping.SerializeToString())
            answer = WatchResponse.FromString(await call.read())
            assert answer.pong == asked
            told += len(answer.slots)
    assert asked > 30
    assert 2 < told < 25
    assert teller.looks < 50


def _ended(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [it for it in lines if (it["event"], it.get("link")) == ("stream ended", "asia")]


def _warned(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [line for line in _ended(lines) if line["log_level"] == "warning"]


def _states(router: Any) -> list[RegionStateReceived]:
    return router.told(RegionStateReceived)  # type: ignore[no-any-return]
