"""One stream to a region, or to a router of this one: opened again and again, and listened to.

Envoy does the connecting, by the stream's authority and declaration, and has all certificates.
Whether the other end is heard outlives a stream: one that breaks and comes back at once has lost
nothing.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from random import Random
from typing import Protocol, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError

from heliostat_extproc.envoy.wire import DECLARATION_HEADER
from heliostat_extproc.federation.budget import Budget
from heliostat_extproc.federation.liveness import Liveness
from heliostat_extproc.federation.protocol import LARGEST_MESSAGE_BYTES, SIGN_PATH, WATCH_PATH
from heliostat_extproc.federation.reports import LinkReason
from heliostat_extproc.federation.state_pb2 import Hello, WatchRequest, WatchResponse

_log = structlog.get_logger(__name__)

_Call: TypeAlias = grpc.aio.StreamStreamCall[bytes, bytes]


class LinkError(Exception):
    """A stream is of no use; `reason` is from a closed set."""

    def __init__(self, reason: LinkReason, detail: str = "") -> None:
        super().__init__(detail or reason.value)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """When to ping, when to give up, and when to try again."""

    ping_seconds: float = 0.05
    """So often that a lost packet is soon missed: TCP sends it again once three more have come."""
    pings_per_second: float = 200.0
    """Of all links together: the more there are, the less often each is pinged."""
    silent_seconds: float = 0.6
    """Without an echo, beside the round trip: then the other end is not heard any more."""
    given_up_seconds: float = 0.06
    """After that what runs there is given up too, unless its gateway has given a sign. TCP needs
    0.62 s to get over 0.2 s without a network at a round trip of 0.1 s (Linux 6.18)."""
    doubtful_seconds: float = 0.15
    """Without an echo, beside the round trip: then the other end's gateway is asked for a sign."""
    silent_pings: int = 3
    """So many pings at least go without an echo before that."""
    never_heard_seconds: float = 3.0
    """How long it may take at the start of the router until the other end is first heard."""
    hung_seconds: float = 2.0
    """A stream on which nothing is heard for so long, beside the round trip, is opened anew."""
    messages_per_second: float = 100.0
    """Of another region; beyond that it is not read from. It is asked twenty times."""
    message_burst: int = 50
    bytes_per_second: float = 200_000.0
    """Of another region: twice what a router tells."""
    burst_bytes: int = 1_000_000
    shortest_backoff_seconds: float = 0.1
    longest_backoff_seconds: float = 2.0
    warning_seconds: float = 60.0
    """Between two warnings that the other end hears another router under this one's name."""

    def ping_interval_seconds(self, links: int) -> float:
        """How often each of so many links is pinged."""
        return max(self.ping_seconds, links / self.pings_per_second)

    def silence_seconds(self, links: int) -> float:
        """How long no echo comes, beside the round trip, until the other end is not heard."""
        return max(self.silent_seconds, self.silent_pings * self.ping_interval_seconds(links))


class FarEnd(Protocol):
    """Takes what the other end says."""

    def on_hello(self, hello: Hello) -> None:
        """A stream begins; LinkError if it is not to this router."""
        ...

    def on_response(self, response: WatchResponse) -> None:
        """Take over what it says."""
        ...

    def on_heard(self, *, heard: bool) -> None:
        """It is heard from now on, or not any more."""
        ...

    def on_reached(self, *, reached: bool) -> None:
        """Its gateway answers from now on, or not any more, whatever its router does."""
        ...

    def on_broken(self) -> None:
        """A stream that had begun is over."""
        ...


class Link:
    """Keeps one stream open until it is cancelled.

    `pause_seconds` says how long to wait for the next ping. Where `limited`, the other end is not
    read from faster than the settings allow, on all its streams together. `check` is to be called
    often: it finds that nothing is heard, also while a stream hangs or cannot be opened. A router
    that is away is told apart from a gateway that is: while no echo comes, the gateway is asked for
    a sign of its own.
    """

    def __init__(
        self,
        destination: str,
        declaration: str,
        socket: Path,
        hello: Hello,
        far_end: FarEnd,
        *,
        settings: LinkSettings,
        pause_seconds: Callable[[], float],
        clock: Callable[[], float],
        random: Random,
        limited: bool = True,
        on_failed: Callable[[], None] = lambda: None,
    ) -> None:
        self.destination = destination
        self.liveness = Liveness()
        self.heard: bool | None = None
        """None until it is decided for the first time."""
        self.reached: bool | None = None
        """Whether the gateway there answers; None until it is decided for the first time."""
        self.problem = LinkReason.NOT_HEARD_YET
        """Why it is not heard, if it is not or would not be soon."""
        self._detail = ""
        """What is known of the problem besides."""
        self._declaration = declaration
        self._socket = socket
        self._hello = hello
        self._far_end = far_end
        self._settings = settings
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._random = random
        self._on_failed = on_failed
        self._limited = limited
        self._messages = Budget(settings.messages_per_second, settings.message_burst, clock)
        self._bytes = Budget(settings.bytes_per_second, settings.burst_bytes, clock)
        self._read_at = -inf
        """From when on it may be read from."""
        self._call: _Call | None = None
        self._ask_gateway: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] | None = None
        self._sign: asyncio.Task[None] | None = None
        self._signed_at = -inf
        """When the gateway was asked for its last sign."""
        self._began_at = self._opened_at = clock()
        self._failures = 0
        self._replaced_told_at = -inf

    def quiet_seconds(self, now: float, silence_seconds: float) -> float:
        """Say how long it is until it is not heard, or given up, if no more echo comes."""
        silent = self.liveness.silent_seconds(now)
        if silent is None or not (self.heard or self.reached):
            return inf
        if self.heard:
            return silence_seconds - silent
        hoped_for_seconds = silence_seconds + self._settings.given_up_seconds - silent
        return hoped_for_seconds if hoped_for_seconds > 0.0 else inf

    def check(self, now: float, silence_seconds: float) -> None:
        """Find out whether the other end is heard no more."""
        silent = self.liveness.silent_seconds(now)
        if self.heard is None:
            if now - self._began_at > self._settings.never_heard_seconds:
                self._decide(heard=False)
        elif self.heard and silent is not None and silent > silence_seconds:
            self._decide(heard=False)
        self._check_gateway(now, silent, silence_seconds)
        hung_seconds = self._settings.hung_seconds + (self.liveness.round_trip_seconds or 0.0)
        heard_at = max(self.liveness.heard_at or self._opened_at, self._opened_at)
        if self._call is not None and now - heard_at > hung_seconds:
            self.restart()

    def _check_gateway(self, now: float, silent: float | None, silence_seconds: float) -> None:
        doubtful = silent is None or silent > self._settings.doubtful_seconds
        if doubtful and self._ask_gateway is not None and (self._sign is None or self._sign.done()):
            self._sign = asyncio.create_task(self._await_sign(self._ask_gateway, now))
        if self.heard is None:
            return
        limit_seconds = silence_seconds + (self.liveness.round_trip_seconds or 0.0)
        is_hoped_for = silent is not None and (
            silent <= silence_seconds + self._settings.given_up_seconds
        )
        reached = self.heard or is_hoped_for or now - self._signed_at <= limit_seconds
        if reached is not self.reached:
            self.reached = reached
            self._far_end.on_reached(reached=reached)

    async def _await_sign(
        self, ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes], now: float
    ) -> None:
        """Ask for what no router serves: the gateway there says so itself."""
        try:
            await ask(b"", timeout=self._settings.hung_seconds, metadata=self._metadata())
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                self._signed_at = now
        await asyncio.sleep(self._settings.ping_seconds)

    def redirect(self, declaration: str) -> None:
        """Hear it as it is declared from now on: Envoy opens no stream under any other."""
        if declaration != self._declaration:
            self._declaration = declaration
            self.restart()

    def restart(self) -> None:
        """Open the stream anew."""
        if self._call is not None:
            self._call.cancel()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return ((DECLARATION_HEADER, self._declaration),)

    async def run(self) -> None:
        """Keep the stream open."""
        async with self._channel() as channel:
            watch = channel.stream_stream(WATCH_PATH, None, None)
            self._ask_gateway = channel.unary_unary(SIGN_PATH, None, None)
            while True:
                try:
                    await self._follow(watch)
                except LinkError as error:
                    self._on_problem(error.reason, str(error))
                except Exception:  # whatever it is, it must not end the router
                    _log.exception("link failed", destination=self.destination)
                    self._on_problem(LinkReason.PROTOCOL_ERROR, "it failed")
                self._on_failed()
                await asyncio.sleep(self._backoff_seconds())

    def _channel(self) -> grpc.aio.Channel:
        backoff_ms = int(self._settings.shortest_backoff_seconds * 1000)
        return grpc.aio.insecure_channel(
            f"unix:{self._socket}",
            options=(
                ("grpc.default_authority", self.destination),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.http2.bdp_probe", 0),  # else it answers each echo with a ping of its own
                ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
                ("grpc.initial_reconnect_backoff_ms", backoff_ms),
                ("grpc.min_reconnect_backoff_ms", backoff_ms),
                ("grpc.max_reconnect_backoff_ms", 10 * backoff_ms),
            ),
        )

    async def _follow(self, watch: grpc.aio.StreamStreamMultiCallable[bytes, bytes]) -> None:
        """Open one stream and listen until it ends, which it does by raising LinkError."""
        call = self._call = watch(None, metadata=self._metadata())
        self._opened_at = self._clock()
        pings = asyncio.create_task(self._ping(call))
        begun = False
        try:
            while True:
                response = await self._read(call)
                if not begun:
                    if not response.HasField("hello"):
                        raise LinkError(LinkReason.PROTOCOL_ERROR, "no hello")
                    self._far_end.on_hello(response.hello)
                    begun = True
                self._on_response(response)
        except grpc.RpcError as error:
            raise _link_error(error) from error
        finally:
            self._call = None
            pings.cancel()
            call.cancel()
            if begun:
                self._far_end.on_broken()

    async def _read(self, call: _Call) -> WatchResponse:
        try:
            if (pause_seconds := self._read_at - self._clock()) > 0:
                await asyncio.sleep(pause_seconds)
            message = await call.read()
        except asyncio.CancelledError as error:
            if call.cancelled() and not _is_cancelling():
                raise LinkError(self.problem, "opened anew") from error
            raise
        if not isinstance(message, bytes):
            raise LinkError(LinkReason.CONNECTION_FAILED, "the other end has closed the stream")
        if self._limited:
            pause_seconds = max(self._messages.spend(1), self._bytes.spend(len(message)))
            self._read_at = self._clock() + pause_seconds
        try:
            return WatchResponse.FromString(message)
        except DecodeError as error:
            raise LinkError(LinkReason.PROTOCOL_ERROR, "not a message") from error

    async def _ping(self, call: _Call) -> None:
        request = WatchRequest(hello=self._hello)
        try:
            while True:
                request.ping = self.liveness.ping(self._clock())
                await call.write(request.SerializeToString())
                request = WatchRequest()
                await asyncio.sleep(self._pause_seconds())
        except (grpc.RpcError, asyncio.InvalidStateError):
            return  # the reader learns why

    def _on_response(self, response: WatchResponse) -> None:
        self._far_end.on_response(response)
        if not (response.HasField("pong") and self.liveness.on_echo(response.pong, self._clock())):
            return
        self._failures, self.problem, self._detail = 0, LinkReason.SILENT, ""
        if not self.heard:
            self._decide(heard=True)

    def _decide(self, *, heard: bool) -> None:
        self.heard = heard
        if heard:
            _log.info("link works", destination=self.destination)
        else:
            _log.warning(
                "link lost",
                destination=self.destination,
                reason=self.problem.value,
                detail=self._detail,
            )
        self._far_end.on_heard(heard=heard)

    def _on_problem(self, reason: LinkReason, detail: str) -> None:
        if reason is LinkReason.REPLACED:
            self._warn_of_namesake(detail)
        elif reason is not self.problem:
            # An Envoy that is not up yet is no news.
            starting = self.heard is None and reason is LinkReason.CONNECTION_FAILED
            log = _log.debug if starting else _log.info
            log("stream ended", link=self.destination, reason=reason.value, detail=detail)
        self.problem, self._detail = reason, detail

    def _warn_of_namesake(self, detail: str) -> None:
        """Where two routers replace each other's streams, each is heard again and again."""
        now = self._clock()
        if now - self._replaced_told_at < self._settings.warning_seconds:
            return
        self._replaced_told_at = now
        _log.warning(
            "stream ended",
            link=self.destination,
            reason=LinkReason.REPLACED.value,
            detail=detail,
            hint=f"do two routers share --router-name {self._hello.router}?",
        )

    def _backoff_seconds(self) -> float:
        settings = self._settings
        doubled = settings.shortest_backoff_seconds * float(2 ** min(self._failures, 16))
        self._failures += 1
        return min(doubled, settings.longest_backoff_seconds) * (0.5 + 0.5 * self._random.random())


def _is_cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _link_error(error: grpc.RpcError) -> LinkError:
    code = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
    detail = (error.details() or "") if isinstance(error, grpc.aio.AioRpcError) else str(error)
    reason = _REASONS.get(code, LinkReason.CONNECTION_FAILED)
    return LinkError(reason, detail[:200])


_REASONS: dict[grpc.StatusCode | None, LinkReason] = {
    grpc.StatusCode.PERMISSION_DENIED: LinkReason.IDENTITY_REFUSED,
    grpc.StatusCode.ABORTED: LinkReason.REPLACED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LinkReason.TOO_MANY_WATCHERS,
    grpc.StatusCode.INVALID_ARGUMENT: LinkReason.PROTOCOL_ERROR,
    grpc.StatusCode.UNIMPLEMENTED: LinkReason.PROTOCOL_ERROR,
}
