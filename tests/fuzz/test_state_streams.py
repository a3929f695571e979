"""What other gateways say on their streams, up to the core that has to live with it."""

from dataclasses import dataclass, field

from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from heliostat_extproc.federation import slots as told
from heliostat_extproc.federation.far_region import FarRegion
from heliostat_extproc.federation.link import LinkError
from heliostat_extproc.federation.protocol import (
    BLOCK_KEY_SCHEME,
    MOST_ADAPTERS,
    MOST_HEADS,
    MOST_ORIGINS,
    MOST_POOLS,
    MOST_WRITERS,
)
from heliostat_extproc.federation.publication import slot_message
from heliostat_extproc.federation.region import Region
from heliostat_extproc.federation.relay_wire import relayed_message
from heliostat_extproc.federation.reports import LinkReason
from heliostat_extproc.federation.sibling_router import SiblingRouter
from heliostat_extproc.federation.slots import OwnState, PoolState
from heliostat_extproc.federation.state_pb2 import Hello, Relayed, Slot, WatchResponse
from heliostat_routing.capacity import PoolCapacity
from heliostat_routing.events import (
    AttemptFailed,
    AttemptStarted,
    EngineMetrics,
    Event,
    MetricsScraped,
    Outcome,
    PeerSettings,
    PeersUpdated,
    PoolUpdated,
    PrefixesKnown,
    RequestArrived,
    RequestFinished,
    RequestMeasured,
    ScrapeFailed,
    SiblingGone,
    SiblingQueue,
    SiblingQueues,
    SiblingSent,
    SiblingTold,
)
from heliostat_routing.router import Router
from heliostat_routing.settings import EndpointSettings, PoolSettings

from .seeds import filled, mutated

HERE = Region("us", "us-1")
TEXTS = ("llama", "chat", "eu", "us", "eu-1", "us-2", "us/us-1", "e:1", "e:2", "served", "failed")

CAPACITY = PoolCapacity(3, 5, 7, 0.25, 0.5, 1.5, 8000.0, 100_000, frozenset({"sql"}))
STATE = OwnState({"llama": PoolState(CAPACITY)}, heads=(1, 2), received={"us/us-1": 3})
SLOTS: list[Message] = [
    slot_message(told.Slot(writer, 1, number, STATE), None, "eu")
    for number, writer in enumerate(("eu-1", "eu-2"), start=1)
]
METRICS = EngineMetrics(1, 2, 0.5, 3, 100, 10, 100, 50, 3, 10_000, 1_700_000_000_000)
RELAYED: list[Message] = [
    relayed_message(event)
    for event in (
        SiblingSent("us-2", RequestArrived(1, "llama", (1, 2), 1200), "e:1", 0.1),
        SiblingTold("us-2", AttemptStarted(1, "e:2")),
        SiblingTold("us-2", AttemptFailed(1, "e:1")),
        SiblingTold("us-2", RequestMeasured(1, "e:1", Outcome.SERVED, 0.1, 2.0, 300, 200, 50, 999)),
        SiblingTold("us-2", RequestFinished(1)),
        MetricsScraped("e:1", METRICS),
        ScrapeFailed("e:1"),
        SiblingQueues("us-2", (SiblingQueue("llama", 3, 0.5, (("e:1", 0.2),)),)),
        PrefixesKnown("e:1", (1, 2, 3), 5.0),
    )
]


@dataclass
class FakeLiveness:
    """A round trip that was measured once."""

    round_trip_seconds: float | None = 0.05


@dataclass
class FakeLink:
    """A stream that is heard, whatever it says."""

    heard: bool = True
    problem: LinkReason = LinkReason.HEARD
    restarts: int = 0
    liveness: FakeLiveness = field(default_factory=FakeLiveness)

    def restart(self) -> None:
        """Count what would open the stream anew."""
        self.restarts += 1


class Core:
    """A real core with a pool of two endpoints and a peer; a second passes with each event."""

    def __init__(self) -> None:
        self.router = Router()
        self.now = 0.0
        endpoints = (EndpointSettings("e:1"), EndpointSettings("e:2"))
        self.submit(PoolUpdated("llama", PoolSettings(), endpoints))
        self.submit(PeersUpdated((PeerSettings("eu", 0.05),)))

    def submit(self, event: Event) -> None:
        """Tell it what has happened."""
        self.now += 1.0
        self.router.handle(event, self.now)

    def must_serve(self) -> None:
        """A request must still be decided, and be forgotten when it ends."""
        self.submit(RequestArrived(10**6, "llama", (1, 2), 1200, may_leave=True))
        self.submit(RequestFinished(10**6))
        self.router.views(self.now)


def as_bytes(kind: type[Relayed] | type[Slot], bases: list[Message]) -> st.SearchStrategy[bytes]:
    """Give a message of this kind that may be odd, or damaged."""
    whole = filled(kind, TEXTS, bases).map(lambda message: message.SerializeToString())
    valid = [message.SerializeToString() for message in bases]
    return whole | mutated(valid, [b"\0", b"\xff", b"\xff" * 9 + b"\x01", b"\x08", *valid])


def parsed(kind: type[Relayed] | type[Slot], data: bytes) -> list[Relayed | Slot]:
    """Read a message as a stream brings it; a stream ends where it cannot be read."""
    try:
        return [kind.FromString(data)]
    except DecodeError:
        return []


@given(st.lists(as_bytes(Slot, SLOTS), max_size=8), st.lists(st.sampled_from(TEXTS), max_size=2))
async def test_whatever_a_region_says_is_bounded_and_harms_nobody(
    slots: list[bytes], gone: list[str]
) -> None:
    """What is kept of it has its bounds, and requests are decided as before."""
    core = Core()
    region = FarRegion(
        "eu",
        "us/us-1",
        submit=core.submit,
        pool_of_model=lambda model: model if model in ("llama", "chat") else None,
        on_reachability=lambda _region, _reached: None,
    )
    region.link = FakeLink()  # type: ignore[assignment]
    region.on_hello(Hello(region="eu", router="eu-1", block_key_scheme=BLOCK_KEY_SCHEME))
    for data in slots:
        region.on_response(WatchResponse(slots=parsed(Slot, data)))
        region.repeat()
    region.on_response(WatchResponse(gone_writers=gone))
    region.pools()
    region.on_broken()
    assert len(region.writers) <= MOST_WRITERS
    for slot in region._view.slots.values():
        state = slot.state
        assert len(state.pools) <= MOST_POOLS
        assert len(state.heads) <= MOST_HEADS
        assert len(state.received) <= MOST_ORIGINS
        names = sum(len(pool.capacity.adapters or ()) for pool in state.pools.values())
        assert names <= MOST_ADAPTERS
    core.must_serve()
    region.on_heard(heard=False)
    core.must_serve()


@given(st.lists(as_bytes(Relayed, RELAYED), max_size=8), st.booleans())
def test_whatever_a_sibling_relays_is_forgotten_with_it(relayed: list[bytes], anew: bool) -> None:
    """Its events reach the core or are refused; when it is gone, no endpoint is charged for it."""
    core = Core()
    sibling = SiblingRouter("us-2", HERE, submit=core.submit, on_slot=lambda: None)
    sibling.link = FakeLink()  # type: ignore[assignment]
    sibling.on_hello(Hello(region="us", router="us-2", block_key_scheme=BLOCK_KEY_SCHEME))
    for data in relayed:
        sibling.on_response(WatchResponse(relayed=parsed(Relayed, data), relay_anew=anew))
        core.must_serve()
    sibling.on_broken()
    core.submit(SiblingGone("us-2"))
    core.must_serve()
    for pool in core.router.views(core.now):
        assert (pool.queued, pool.inflight) == (0, 0)
        assert all(endpoint.inflight == 0 for endpoint in pool.endpoints)


@given(filled(Hello, TEXTS))
def test_any_hello_is_taken_or_ends_the_stream(hello: Hello) -> None:
    """Whoever it is from."""
    core = Core()
    sibling = SiblingRouter("us-2", HERE, submit=core.submit, on_slot=lambda: None)
    sibling.link = FakeLink()  # type: ignore[assignment]
    try:
        sibling.on_hello(hello)
    except LinkError:
        return
    assert (hello.region, hello.router) == ("us", "us-2")
