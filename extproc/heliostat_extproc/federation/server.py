"""The State service: routers of other regions and of this one watch what this router says.

Who they are is what Envoy has verified of their certificates. What a watcher can cost is bounded:
its streams once it has introduced itself, the rate of its pings, and what is written for it, which
is never more than it takes.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from google.protobuf.message import DecodeError
from grpc import StatusCode

from heliostat_extproc.envoy.wire import IDENTITY_HEADER
from heliostat_extproc.federation.budget import Budget
from heliostat_extproc.federation.identity import parse_identity
from heliostat_extproc.federation.publication import Publication, WatcherRecord
from heliostat_extproc.federation.relay import RelayQueue
from heliostat_extproc.federation.state_pb2 import Hello, WatchRequest, WatchResponse
from heliostat_extproc.grpc_streams.message_stream import MessageStream

_log = structlog.get_logger(__name__)


class WatchRefusedError(Exception):
    """Who asks may not watch."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Who watches: a router of another region by its name REGION/ROUTER, or a sibling."""

    name: str
    is_sibling: bool


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What watchers may cost."""

    watchers_per_identity: int = 64
    hello_seconds: float = 5.0
    """How long a watcher may take to introduce itself."""
    pings_per_second: float = 100.0
    """Beyond that a watcher is not read from."""
    ping_burst: int = 50
    state_seconds: float = 0.09
    """Between two states for one watcher at least; it asks for one with each ping, so every second
    echo brings one."""
    state_bytes_per_second: float = 100_000.0
    """For one watcher: what is told at once delays what is told next."""


@dataclass(eq=False, slots=True)
class _Watcher:
    identity: str
    hello: Hello
    record: WatcherRecord
    relay: RelayQueue | None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    ping: int | None = None
    state_at: float = 0.0
    """The earliest instant for the next part of the state."""
    over: tuple[StatusCode, str] | None = None
    """Why its stream ends."""


class StateServicer:
    """Serves the Watch streams.

    `admit` says who watches, from identity and hello, or raises WatchRefusedError. `open_relay`
    makes the queue of a sibling, `close_relay` is given it back. `refresh` brings the publication
    up to date, whenever a watcher asks.
    """

    def __init__(
        self,
        hello: Hello,
        publication: Publication,
        *,
        admit: Callable[[str, Hello], Admission],
        open_relay: Callable[[], RelayQueue],
        close_relay: Callable[[RelayQueue], None],
        refresh: Callable[[], None],
        clock: Callable[[], float],
        settings: ServerSettings | None = None,
    ) -> None:
        self._hello = hello
        self._publication = publication
        self._admit = admit
        self._open_relay = open_relay
        self._close_relay = close_relay
        self._refresh = refresh
        self._clock = clock
        self._settings = settings or ServerSettings()
        self._watchers: dict[tuple[str, str], _Watcher] = {}
        self._streams: Counter[str] = Counter()
        """Open streams by identity, with those that have been replaced and have not ended yet."""

    @property
    def is_watched(self) -> bool:
        """Whether there is anyone to tell anything."""
        return bool(self._watchers)

    @property
    def watchers(self) -> frozenset[str]:
        """Name the routers that watch, by region and name."""
        return frozenset(f"{it.hello.region}/{it.hello.router}" for it in self._watchers.values())

    def wake_lacking(self) -> None:
        """Tell the watchers that lack something of the state, before they ask."""
        for watcher in self._watchers.values():
            if watcher.record.lacks(self._publication):
                watcher.state_at = 0.0
                watcher.wake.set()

    def wake_siblings(self) -> None:
        """Tell the siblings what was relayed."""
        for watcher in self._watchers.values():
            if watcher.relay is not None:
                watcher.wake.set()

    def recheck(self) -> None:
        """End the streams of those that may not watch any more."""
        for watcher in self._watchers.values():
            try:
                self._admit(watcher.identity, watcher.hello)
            except WatchRefusedError as error:
                watcher.over = StatusCode.PERMISSION_DENIED, str(error)
                watcher.wake.set()

    async def watch(self, stream: MessageStream) -> None:
        """Serve one watcher."""
        # A client that is still writing when it is refused does not learn why: read first.
        request = await self._first_request(stream)
        identity = parse_identity(stream.metadata(IDENTITY_HEADER))
        if identity is None:
            await stream.abort(StatusCode.PERMISSION_DENIED, "no verified identity")
        try:
            admission = self._admit(identity, request.hello)
        except WatchRefusedError as error:
            _log.warning("watcher refused", identity=identity, problem=str(error))
            await stream.abort(StatusCode.PERMISSION_DENIED, str(error))
        watcher = _Watcher(
            identity,
            request.hello,
            WatcherRecord(None if admission.is_sibling else admission.name),
            self._open_relay() if admission.is_sibling else None,
            ping=request.ping if request.HasField("ping") else None,
        )
        try:
            await self._enter(watcher, stream)
            await self._converse(watcher, stream)
        finally:
            self._leave(watcher)

    async def _first_request(self, stream: MessageStream) -> WatchRequest:
        try:
            async with asyncio.timeout(self._settings.hello_seconds):
                request = await _read(stream)
        except TimeoutError:
            request = None
        if request is None or not request.HasField("hello"):
            await stream.abort(StatusCode.INVALID_ARGUMENT, "the hello is missing")
        return request

    async def _enter(self, watcher: _Watcher, stream: MessageStream) -> None:
        """A router watches once: its newer stream replaces the one before.

        What has been replaced may take long to end, where its watcher does not read: as many such
        streams as watchers are borne with.
        """
        identity, limit = watcher.identity, self._settings.watchers_per_identity
        key = identity, watcher.hello.router
        before = self._watchers.get(key)
        self._streams[identity] += 1
        is_one_more = before is None and self._watchers_of(identity) >= limit
        if is_one_more or self._streams[identity] > 2 * limit:
            await stream.abort(StatusCode.RESOURCE_EXHAUSTED, "too many watchers")
        if before is not None:
            before.over = StatusCode.ABORTED, "a newer stream has replaced it"
            before.wake.set()
        self._refresh()
        self._watchers[key] = watcher

    def _watchers_of(self, identity: str) -> int:
        return sum(1 for other, _ in self._watchers if other == identity)

    def _leave(self, watcher: _Watcher) -> None:
        key = watcher.identity, watcher.hello.router
        self._streams[watcher.identity] -= 1
        self._streams += Counter()  # keeps those that are open
        if self._watchers.get(key) is watcher:
            del self._watchers[key]
        if watcher.relay is not None:
            self._close_relay(watcher.relay)

    async def _converse(self, watcher: _Watcher, stream: MessageStream) -> None:
        reader = asyncio.create_task(self._listen(watcher, stream))
        reader.add_done_callback(lambda _: watcher.wake.set())
        try:
            await self._tell(watcher, reader, stream)
        finally:
            reader.cancel()

    async def _listen(self, watcher: _Watcher, stream: MessageStream) -> None:
        """Note the pings, no faster than they may come."""
        settings = self._settings
        budget = Budget(settings.pings_per_second, settings.ping_burst, self._clock)
        while (request := await _read(stream)) is not None:
            if request.HasField("ping"):
                watcher.ping = request.ping
                watcher.wake.set()
            if pause_seconds := budget.spend(1):
                await asyncio.sleep(pause_seconds)

    async def _tell(
        self, watcher: _Watcher, reader: "asyncio.Task[None]", stream: MessageStream
    ) -> None:
        response = WatchResponse(hello=self._hello)
        while not reader.done():
            if watcher.over is not None:
                await stream.abort(*watcher.over)
            self._fill(response, watcher)
            if response.ListFields():
                await stream.write(response.SerializeToString())
            response = WatchResponse()
            await watcher.wake.wait()
            watcher.wake.clear()
        await reader  # raises where the watcher has broken the protocol

    def _fill(self, response: WatchResponse, watcher: _Watcher) -> None:
        """Put in what the watcher lacks."""
        is_due = self._clock() >= watcher.state_at
        if watcher.ping is not None:
            response.pong, watcher.ping = watcher.ping, None
            if is_due:
                self._refresh()
        if is_due:
            self._fill_state(response, watcher)
        if watcher.relay is not None:
            response.relay_anew, relayed = watcher.relay.take()
            response.relayed.extend(relayed)
            if watcher.relay.has_more:
                watcher.wake.set()

    def _fill_state(self, response: WatchResponse, watcher: _Watcher) -> None:
        difference = watcher.record.difference(self._publication)
        if difference.is_empty:
            return
        response.slots.extend(difference.slots)
        response.gone_writers.extend(difference.gone_writers)
        settings = self._settings
        taken_seconds = response.ByteSize() / settings.state_bytes_per_second
        watcher.state_at = self._clock() + max(settings.state_seconds, taken_seconds)


async def _read(stream: MessageStream) -> WatchRequest | None:
    """Read a request; None at the end, or where it is none."""
    message = await stream.read()
    if message is None:
        return None
    try:
        return WatchRequest.FromString(message)
    except DecodeError:
        return None
