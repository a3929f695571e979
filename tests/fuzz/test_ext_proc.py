"""Any messages in any order on any number of streams, up to the core: nothing raises or leaks."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from heliostat_extproc.conversation import Sender
from heliostat_extproc.discovery.catalog import NotSyncedError, Resolution, ServedModel
from heliostat_extproc.driver import RouterDriver
from heliostat_extproc.envoy import wire
from heliostat_extproc.exchange import ExchangeSettings
from heliostat_extproc.ext_proc import ExtProcServicer
from heliostat_extproc.federation.region import Region
from heliostat_extproc.upb import ProcessingMode, ProcessingRequest, ProcessingResponse
from heliostat_routing.capacity import PoolCapacity
from heliostat_routing.events import (
    AttemptFailed,
    EngineMetrics,
    MetricsScraped,
    Outcome,
    PeerSettings,
    PeersUpdated,
    PoolUpdated,
    RegionStateReceived,
    RequestMeasured,
)
from heliostat_routing.router import Router
from heliostat_routing.settings import EndpointSettings, PoolSettings

from .seeds import filled, mutated

LIMIT_BYTES = 4000
EU = "spiffe://example/region/eu"
ROOMY = PoolCapacity(9, 9, 0, 0.0, 0.1, 0.0, 9000.0, 100_000)
QUIET = EngineMetrics(0, 0, 0.1, 0, 0, 0, 0, 0)


class AbortedError(Exception):
    """The stream has been ended with a status."""


class FakeDirectory:
    """Serves `m`, its alias `alias` and the adapter `lora`, once it is synced."""

    def __init__(self) -> None:
        self.synced = True

    def _check(self) -> None:
        if not self.synced:
            raise NotSyncedError

    def resolve(self, name: str) -> Resolution | None:
        self._check()
        known = {"m": None, "alias": None, "lora": "lora"}
        return Resolution("pool", "m", known[name]) if name in known else None

    def models(self) -> tuple[ServedModel, ...]:
        self._check()
        return (ServedModel("m", "m", None, "pool"),)

    def residency(self, pool: str) -> frozenset[str] | None:
        self._check()
        return None


class Observer:
    """Counts failures of the core, and hears of nothing else."""

    follows_traces = False

    def __init__(self) -> None:
        self.core_failures = 0

    def on_core_failed(self) -> None:
        self.core_failures += 1

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_args, **_kwargs: None


class StandingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time the test moves."""

    now = 1000.0

    def time(self) -> float:
        return self.now


class Peer:
    """The other end of one stream, whose messages the test sends."""

    def __init__(self, entrance: str) -> None:
        self._entrance = entrance
        self._sent: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._closed = False
        self.answers: list[Any] = []
        self.task: asyncio.Task[None]

    def send(self, data: bytes | None) -> None:
        """Send a message; None: there are no more."""
        if data is None:
            self._closed = True
        elif not self._closed:
            self._sent.append(data)
        self._news.set()

    async def read(self) -> bytes | None:
        """Give the router the next message."""
        while not self._sent and not self._closed:
            self._news.clear()
            await self._news.wait()
        return self._sent.popleft() if self._sent else None

    async def write(self, data: bytes) -> None:
        """Take an answer, which must be one."""
        assert not self.task.done()
        self.answers.append(ProcessingResponse.FromString(data))

    def metadata(self, name: str) -> str:
        """Say by which entrance the request has come."""
        return self._entrance if name == wire.ENTRANCE_METADATA else ""

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """End the stream, as gRPC does."""
        assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAVAILABLE)
        raise AbortedError(details)


def message(kind: str, **fields: Any) -> Message:
    """Write a message of this kind."""
    written = ProcessingRequest()
    part = getattr(written, kind)
    part.SetInParent()
    for name, value in fields.items():
        setattr(part, name, value)
    return written


def headers(*, end: bool = False, mode: int = ProcessingMode.BUFFERED, **more: str) -> Message:
    written = message("request_headers", end_of_stream=end)
    written.protocol_config.request_body_mode = mode
    written.protocol_config.response_body_mode = mode
    named = {":method": "POST", ":path": "/v1/chat/completions", **more}
    for key, value in named.items():
        written.request_headers.headers.headers.add(key=key, raw_value=value.encode())
    return written


def body(content: bytes, *, end: bool = True) -> Message:
    return message("request_body", body=content, end_of_stream=end)


TERMS = {
    wire.IDENTITY_HEADER: f"URI={EU}",
    wire.ORIGIN_HEADER: "eu-1",
    wire.HOLD_HEADER: "0.5",
}
HEADERS = [
    headers(),
    headers(**TERMS),
    headers(mode=ProcessingMode.FULL_DUPLEX_STREAMED),
    headers(mode=ProcessingMode.NONE),
    headers(**{":method": "GET", ":path": "/v1/models"}, end=True),
    headers(**{"x-data-residency": "us"}),
]
BODIES = [
    *(body(b'{"model":"%s","prompt":"hi"}' % name) for name in (b"m", b"alias", b"lora", b"x")),
    body(b'{"model":"m","prompt":"%s"}' % (b"x" * 3000)),
    body(b'{"model":"m",', end=False),
    body(b'"prompt":"hi"}'),
    body(b""),
    body(b"x" * (LIMIT_BYTES + 1), end=False),
]
OTHERS = [
    *(message(kind) for kind in ("request_trailers", "response_headers", "response_trailers")),
    message("response_body", body=b'data: {"usage":{"prompt_tokens":3}}\n\n', end_of_stream=False),
    message("response_body", body=b"data: [DONE]\n\n", end_of_stream=True),
]
VALID = [*HEADERS, *BODIES, *OTHERS]
DATA = [it.SerializeToString() for it in VALID]
TEXTS = (
    *(":method", ":path", "POST", "GET", "/v1/chat/completions", "/v1/models/m", "content-length"),
    *("content-encoding", "content-type", "x-request-id", "traceparent", *TERMS, *TERMS.values()),
    *(wire.TICKET_HEADER, wire.POOL_HEADER, wire.RESIDENCY_HEADER, wire.CLIENT_RESIDENCY_HEADER),
    *("multipart/form-data; boundary=b", "9" * 5000, "\u0663", "us;eu", "-1", "nan"),
)
MESSAGES = (
    st.sampled_from(DATA)
    | mutated(DATA, [b"\0", b"\xff", b"\x08", b"\xff" * 9 + b"\x01", *DATA[:4]])
    | filled(ProcessingRequest, TEXTS, VALID).map(lambda it: it.SerializeToString())
)
STREAM = st.integers(0, 99)
"""Chooses among the streams that are open."""


class Streams(RuleBasedStateMachine):
    """Peers that say anything, endpoints that come and go, and time."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = StandingLoop()
        self.unexpected: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.unexpected.append(context))
        self.directory, self.observer = FakeDirectory(), Observer()
        self.open: list[Peer] = []
        self.tickets: list[str] = ["7", "", "-1", "\u0663", "9" * 5000]
        self.run(self.start)

    def run(self, step: Callable[[], object]) -> None:
        """Do something on the loop, and let everything that follows from it happen."""

        async def stepping() -> None:
            step()
            for _ in range(30):
                await asyncio.sleep(0)

        self.loop.run_until_complete(stepping())
        for peer in [peer for peer in self.open if peer.task.done()]:
            self.open.remove(peer)
            if not peer.task.cancelled():
                failure = peer.task.exception()
                if failure is not None and not isinstance(failure, AbortedError):
                    raise failure
            self.note_tickets(peer)

    def note_tickets(self, peer: Peer) -> None:
        """Keep the tickets that were told, to come back with."""
        for answer in peer.answers:
            fields = answer.dynamic_metadata.fields
            if wire.ROUTER_NAMESPACE in fields:
                told = fields[wire.ROUTER_NAMESPACE].struct_value.fields
                self.tickets.append(told[wire.TICKET_KEY].string_value)

    def start(self) -> None:
        """Begin with an endpoint, so that a second request is held, and a region that is silent."""
        self.driver = RouterDriver(Router(), observer=self.observer)
        exchange = ExchangeSettings(LIMIT_BYTES, Region("us", "us-1"), {EU: "eu"}.get)
        self.servicer = ExtProcServicer(self.driver, self.directory, self.observer, exchange)
        self.handlers = {
            own: self.servicer.handler(Sender("us-1", forwards=own), own_envoy=own)
            for own in (True, False)
        }
        self.update(("e:1",), 2)
        self.driver.submit(PeersUpdated((PeerSettings("eu", 0.01),)))

    def update(self, endpoints: tuple[str, ...], queue_limit: int) -> None:
        """Let the pool have these endpoints."""
        pool = PoolSettings(queue_limit=queue_limit, queue_timeout_seconds=5.0)
        self.driver.submit(PoolUpdated("pool", pool, tuple(map(EndpointSettings, endpoints))))

    @rule(
        own=st.sampled_from([True, True, False]),
        entrance=st.sampled_from([*wire.Entrance, "clients", "nonsense"]),
        first=st.sampled_from([it.SerializeToString() for it in HEADERS]) | MESSAGES,
    )
    @precondition(lambda self: len(self.open) < 6)
    def begin(self, own: bool, entrance: str, first: bytes) -> None:
        """A stream begins, usually with headers."""

        def step() -> None:
            peer = Peer(entrance)
            peer.task = self.loop.create_task(self.handlers[own](peer))
            peer.send(first)
            self.open.append(peer)

        self.run(step)

    @rule(ticket=STREAM, pool=st.sampled_from(["pool", "", "gone"]))
    @precondition(lambda self: len(self.open) < 6)
    def come_back(self, ticket: int, pool: str) -> None:
        """A request comes in again, known or not."""
        for peer in self.open:
            self.note_tickets(peer)
        text = self.tickets[-1 - ticket % len(self.tickets)]
        first = headers(**{wire.TICKET_HEADER: text, wire.POOL_HEADER: pool})
        self.begin(own=True, entrance=wire.Entrance.RETURN, first=first.SerializeToString())

    @rule(stream=STREAM, data=MESSAGES)
    @precondition(lambda self: self.open)
    def send(self, stream: int, data: bytes) -> None:
        """A peer says something."""
        self.run(lambda: self.open[stream % len(self.open)].send(data))

    @rule(kind=st.sampled_from(["own", "peer", "duplex", "foreign"]))
    @precondition(lambda self: len(self.open) < 6)
    def ask(self, kind: str) -> None:
        """A whole request comes that can be served."""
        first = DATA[{"own": 0, "peer": 1, "duplex": 2, "foreign": 0}[kind]]
        entrance = wire.Entrance.FEDERATION if kind == "peer" else wire.Entrance.CLIENTS
        self.begin(own=kind in ("own", "peer"), entrance=entrance, first=first)
        if self.open:
            self.open[-1].send(DATA[len(HEADERS)])
            self.run(lambda: None)

    @rule(stream=STREAM)
    @precondition(lambda self: self.open)
    def babble(self, stream: int) -> None:
        """A peer sends what is no message."""
        self.send(stream, b"\xff\xff")

    @rule(stream=STREAM, how=st.sampled_from(["end", "cancel"]))
    @precondition(lambda self: self.open)
    def leave(self, stream: int, how: str) -> None:
        """A peer has no more to say, or is gone at once."""
        peer = self.open[stream % len(self.open)]
        self.run(lambda: peer.send(None) if how == "end" else peer.task.cancel())

    @rule(endpoints=st.sets(st.sampled_from(["e:1", "e:2", "e:3"])), queue_limit=st.integers(0, 3))
    def flap(self, endpoints: set[str], queue_limit: int) -> None:
        """Endpoints come and go."""
        self.run(lambda: self.update(tuple(sorted(endpoints)), queue_limit))

    @rule(endpoint=st.sampled_from(["e:1", "e:2"]), ticket=STREAM, failed=st.booleans())
    def report(self, endpoint: str, ticket: int, failed: bool) -> None:
        """The access log tells of a request that may be there."""
        known = [int(text) for text in self.tickets if 9 < len(text) < 20]
        number = known[ticket % len(known)] if known else 1
        event = RequestMeasured(number, endpoint, Outcome.SERVED, 0.1, 1.0, 3, 0, 5, 99)
        self.run(lambda: self.driver.submit(AttemptFailed(number, endpoint) if failed else event))

    @rule(endpoint=st.sampled_from(["e:1", "e:2"]))
    def scrape(self, endpoint: str) -> None:
        """An engine says that it is idle."""
        self.run(lambda: self.driver.submit(MetricsScraped(endpoint, QUIET)))

    @rule()
    def hear_region(self) -> None:
        """The other region has room."""
        state = RegionStateReceived("eu", "eu-1", (("pool", ROOMY),), 0, 0.01)
        self.run(lambda: self.driver.submit(state))

    @rule(synced=st.booleans())
    def sync(self, synced: bool) -> None:
        """The pools are known, or not yet."""
        self.directory.synced = synced

    @rule(seconds=st.sampled_from([0.01, 0.6, 10.0]))
    def wait(self, seconds: float) -> None:
        """Time passes: deadlines come."""
        self.loop.now += seconds
        self.run(lambda: None)

    @invariant()
    def nothing_has_failed(self) -> None:
        """No task ended with an error, and the core took every event."""
        assert not self.unexpected
        assert not self.observer.core_failures
        assert self.driver.open_requests <= len(self.open)

    def teardown(self) -> None:
        """All peers leave: nothing is held, promised or charged any more."""
        for peer in list(self.open):
            self.run(lambda peer=peer: peer.send(None))
        self.wait(10.0)
        assert not self.open
        assert (self.driver.open_requests, self.driver.held_requests) == (0, 0)
        assert not self.driver.promised_endpoints()
        assert not self.driver.open_regions()
        for pool in self.driver.views():
            assert (pool.queued, pool.inflight) == (0, 0)
            assert all(endpoint.inflight == 0 for endpoint in pool.endpoints)
        assert not asyncio.all_tasks(self.loop)
        self.driver.close()
        self.loop.close()
        self.nothing_has_failed()


TestStreams = Streams.TestCase
TestStreams.settings = settings(stateful_step_count=25)
