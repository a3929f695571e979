"""What the router is told: every input of the core, as data.

An event says what happened, never what to do about it. All instants are seconds on one monotonic
clock that the caller owns; the core compares them and never reads a clock itself.
"""

from dataclasses import dataclass
from enum import StrEnum

from heliostat_routing.capacity import PoolCapacity
from heliostat_routing.learned import LineSamples, TokenSamples
from heliostat_routing.settings import EndpointSettings, PoolSettings


class Outcome(StrEnum):
    """How an attempt at an endpoint ended, as the access log tells it."""

    SERVED = "served"
    """The engine answered with output."""
    REFUSED = "refused"
    """The engine answered 4xx, the request's own fault: it never ran."""
    CLIENT_ABORTED = "client-aborted"
    """The client left; says nothing about the endpoint."""
    ENGINE_FAILED = "engine-failed"
    """Refused, reset, answered 5xx, or ended a 200 without any output."""


@dataclass(frozen=True, slots=True)
class PoolUpdated:
    """The whole truth about one pool: its settings and all its endpoints.

    Level-based: endpoints that are missing here have left the pool. Requests in flight on them go
    on; requests queued in the pool are kept.
    """

    pool: str
    settings: PoolSettings
    endpoints: tuple[EndpointSettings, ...]


@dataclass(frozen=True, slots=True)
class PoolRemoved:
    """The pool takes no new requests; what it queued is still served by its last endpoints."""

    pool: str


@dataclass(frozen=True, slots=True)
class RequestArrived:
    """A request asks for an endpoint of a pool.

    `ticket` is unique for the life of the router. `block_keys` are the chained hashes of the
    prompt's full blocks, in order: equal keys mean equal prompts up to and including that block.
    They are opaque here and already cover model, adapter, tools and every message.
    `affinity_key` spreads requests for the consistent-hash policy. `origin` is the peer's router
    that has forwarded the request, which then goes no further, and `hold_seconds` how long it may
    be held here before it is given back.
    """

    ticket: int
    pool: str
    block_keys: tuple[int, ...]
    prompt_bytes: int
    max_output_tokens: int | None = None
    adapter: str | None = None
    affinity_key: int = 0
    origin: str | None = None
    hold_seconds: float | None = None
    residency: frozenset[str] | None = None
    may_leave: bool = True
    """Whether whoever has asked can send it to another region."""
    subset: frozenset[str] | None = None
    """The endpoints that it may go to, by address; None: any."""
    priority: int = 0
    """Of queued requests those with the highest go first; one below zero is never queued."""
    ttft_objective_seconds: float | None = None
    """For this request, in place of its pool's."""


@dataclass(frozen=True, slots=True)
class DispatchFailed:
    """None of the endpoints that a dispatch named has answered: the request is decided anew."""

    ticket: int
    endpoints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ForwardTurnedAway:
    """A request of a peer's router was answered before it came to be asked about.

    `origin` is as in `RequestArrived`: the request is on its way no more.
    """

    origin: str


@dataclass(frozen=True, slots=True)
class RequestFinished:
    """The request's stream is over, for whatever reason and in whatever state it was."""

    ticket: int


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """The proxy has opened the request's stream to this endpoint: the ledger entry moves here."""

    ticket: int
    endpoint: str


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt at this endpoint failed before its response headers; the proxy may retry."""

    ticket: int
    endpoint: str


@dataclass(frozen=True, slots=True)
class RequestMeasured:
    """What the access log says of a finished request; it calibrates, and feeds the breaker.

    `ttft_seconds` runs from the moment the request was sent upstream to the first body byte.
    Token counts are None where the engine reported no usage; `output_bytes` is the answer's size.
    """

    ticket: int
    endpoint: str | None
    outcome: Outcome
    ttft_seconds: float | None = None
    duration_seconds: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    output_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """One scrape of an engine. Counters are cumulative since the engine started.

    `first_tokens` counts the requests whose prefill is done, `kv_capacity_tokens` is the size of
    the KV cache, `started_milliseconds` when its process began, on the engine's own clock: another
    value is another process. None is what the engine does not say: missing is not zero.
    """

    running_requests: int
    waiting_requests: int
    kv_cache_utilization: float
    finished_requests: int
    prompt_tokens: int
    generation_tokens: int
    prefix_query_tokens: int | None
    prefix_hit_tokens: int | None
    first_tokens: int | None = None
    kv_capacity_tokens: int | None = None
    started_milliseconds: int | None = None


@dataclass(frozen=True, slots=True)
class MetricsScraped:
    """A scrape of this endpoint has come back."""

    endpoint: str
    metrics: EngineMetrics


@dataclass(frozen=True, slots=True)
class ScrapeFailed:
    """The endpoint could not be scraped, or answered nonsense. Missing is not zero."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """Another region that requests may be forwarded to."""

    region: str
    round_trip_seconds: float
    """Assumed until the stream to it has measured its own."""
    groups: frozenset[str] = frozenset()
    """Groups of regions, as residency rules name them, that it belongs to."""
    price_per_gib: float = 0.0
    """Of what is sent there and back, in the currency of the pools' engine prices."""
    leave_above_seconds: float = 0.0
    """No request goes there that would wait less than this here."""


@dataclass(frozen=True, slots=True)
class PeersUpdated:
    """The whole truth about the peers: regions that are missing here are no candidates any more."""

    peers: tuple[PeerSettings, ...]


@dataclass(frozen=True, slots=True)
class RegionStateReceived:
    """What a router of another region says of its pools, each by its name.

    `writer` tells that region's routers apart; `received` is how many requests that writer has had
    from this router since it began, `round_trip_seconds` what the stream to it has measured.
    `heads` are the block keys of the prefixes that are asked for most there, of all pools. With
    another `epoch` the writer has begun anew, and so have its counts.
    """

    region: str
    writer: str
    capacities: tuple[tuple[str, PoolCapacity], ...]
    received: int
    round_trip_seconds: float | None = None
    heads: tuple[int, ...] = ()
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class PeerLost:
    """A region is not reached any more: what was sent there and has no answer yet comes back."""

    region: str


@dataclass(frozen=True, slots=True)
class ForwardRefused:
    """A peer could not serve the request, or was not reached: it is decided anew."""

    ticket: int
    region: str


@dataclass(frozen=True, slots=True)
class SiblingSent:
    """Another router of this region has sent a request of its own to an endpoint.

    `request` is as that router had it: its ticket is the sibling's, not one of this router.
    """

    sibling: str
    request: RequestArrived
    endpoint: str
    age_seconds: float
    """How long ago."""


@dataclass(frozen=True, slots=True)
class SiblingTold:
    """What has happened since to a request that a sibling has sent; the ticket is the sibling's."""

    sibling: str
    event: AttemptStarted | AttemptFailed | RequestMeasured | RequestFinished


@dataclass(frozen=True, slots=True)
class SiblingQueue:
    """The queue of one pool at a sibling; without entries it is empty."""

    pool: str
    queued: int
    oldest_seconds: float | None
    """How long the oldest has waited that takes any endpoint; None if there is none."""
    held: tuple[tuple[str, float], ...] = ()
    """By endpoint: how long the oldest has waited that is held for it."""


@dataclass(frozen=True, slots=True)
class SiblingQueues:
    """The queues of a sibling that are not empty: the whole truth."""

    sibling: str
    queues: tuple[SiblingQueue, ...]


@dataclass(frozen=True, slots=True)
class SiblingGone:
    """A sibling has ended, or is not heard: its requests are over, and it takes no slot."""

    sibling: str


@dataclass(frozen=True, slots=True)
class PrefixesKnown:
    """Blocks that an endpoint holds, as a sibling believes: for a router that has come late.

    What this router knows of the endpoint itself stands.
    """

    endpoint: str
    block_keys: tuple[int, ...]
    """The one that was used last comes first."""
    age_seconds: float
    """How long ago the one was used that comes last."""


@dataclass(frozen=True, slots=True)
class PoolLearned:
    """What a sibling has learned of a pool's requests: for a router that has come late."""

    pool: str
    prefill: LineSamples
    pace: LineSamples
    tokens: TokenSamples
    usual_work_seconds: float
    usual_kv_tokens: float


@dataclass(frozen=True, slots=True)
class EndpointLearned:
    """What a sibling has learned of an endpoint: for a router that has come late."""

    endpoint: str
    prefill: LineSamples
    step_seconds: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: the instant of the last `WakeAt` command has come."""


Event = (
    PoolUpdated
    | PoolRemoved
    | RequestArrived
    | RequestFinished
    | AttemptStarted
    | AttemptFailed
    | RequestMeasured
    | MetricsScraped
    | ScrapeFailed
    | PeersUpdated
    | RegionStateReceived
    | PeerLost
    | ForwardRefused
    | ForwardTurnedAway
    | DispatchFailed
    | SiblingSent
    | SiblingTold
    | SiblingQueues
    | SiblingGone
    | PrefixesKnown
    | PoolLearned
    | EndpointLearned
    | Tick
)
