"""How a world is made up: what a scenario file compiles to. Seconds throughout."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from heliostat_sim.engine import EngineProfile


class FaultKind(StrEnum):
    """What can break."""

    ENGINE = "engine"
    """An engine dies: its streams are cut, its cache is gone when it is back."""
    GATEWAY = "gateway"
    """A region's routers restart and forget everything; queues are lost, streams go on."""
    POD = "pod"
    """One gateway of a region is gone, with all streams through it."""
    LINK = "link"
    """The gateways and engines of two regions cannot reach each other; streams are cut."""
    REGION = "region"
    """All engines and gateways of a region are gone."""
    SLOW = "slow"
    """An engine runs at `speed_ratio` of its speed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that breaks at an instant, and is mended `lasts_seconds` later."""

    kind: FaultKind
    at_seconds: float
    lasts_seconds: float
    region: str
    other_region: str = ""
    """The other end of a link."""
    engine: int = 0
    """Which of the region's engines, from 0."""
    gateway: int = 0
    """Which of the region's gateways, from 0."""
    speed_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class RegionSettings:
    """A region: its engines, and the routers that share its traffic."""

    name: str
    engines: int
    gateways: int = 1


@dataclass(frozen=True, slots=True)
class SignalSettings:
    """How fresh and how reliable is what gateways are told."""

    scrape_interval_seconds: float = 0.2
    """Of engines with requests in flight, as in production."""
    idle_scrape_interval_seconds: float = 3.0
    scrapes_per_second: float = 150.0
    """What a router can afford, as in production: a tenth of a core at about 0.7 ms each. Where
    more engines are busy, each is scraped less often."""
    scrape_delay_seconds: float = 0.0
    """How old a scrape is when it comes, beside the network's way."""
    scrape_loss_ratio: float = 0.0
    access_log_seconds: float = 0.05
    """From the end of a request to its access log entry, as in production."""
    state_interval_seconds: float = 0.1
    """Between states that regions tell each other, at least."""
    states_per_second: float = 100.0
    """What a router sends at most to all its peers, so that the exchange grows with the regions and
    not with their pairs: with more than ten peers each hears less often."""
    most_peers: int | None = None
    """Regions that each region exchanges states with, about: half of them the nearest, the others
    spread over all distances. None: all."""
    heads: bool = False
    """Whether states tell the prefixes that are asked for most, as they do in production. Not by
    default: acting on them makes storms worse (design record 0007)."""
    peer_lost_seconds: float = 0.5
    """Silence, beside the round trip, after which a peer counts as lost, as in production; where
    states are told more seldom than that, twice the time between them."""
    relays: bool = True
    """Whether Heliostat's routers of one region tell each other what they send and see."""
    relay_seconds: float = 0.001
    """One way between two routers of a region."""
    relay_interval_seconds: float = 0.005
    """Between two messages of a router to its siblings, at least."""
    sibling_lost_seconds: float = 0.7
    """From a gateway's death until its siblings know."""
    assumed_prefill_ratio: float = 1.0
    """The prefill rate that the pool's settings assume, over the true one."""


@dataclass(frozen=True, slots=True)
class WorldSettings:
    """Everything but the demand, the policy and the seed."""

    regions: tuple[RegionSettings, ...]
    profile: EngineProfile
    round_trips: Mapping[frozenset[str], float]
    """Between each two regions."""
    within_seconds: float = 0.003
    """Round trip inside a region."""
    duration_seconds: float = 600.0
    queue_timeout_seconds: float = 60.0
    """Deadline of requests that Heliostat holds."""
    queue_limit: int = 1000
    """Requests that each of Heliostat's routers holds at most."""
    signals: SignalSettings = field(default_factory=SignalSettings)
    faults: tuple[Fault, ...] = ()
    single_gateway: str | None = None
    """One gateway in this region places all requests on all engines; None: one for each region."""
    health_seconds: float = 2.0
    """From an engine's death until discovery has taken it from the gateways' lists."""
    retry_seconds: float = 1.0
    """How long a client waits before it asks again after an error."""
    connect_timeout_seconds: float = 1.0
    """How long a gateway waits for an answer across a cut link before it gives up."""
    sample_seconds: float = 1.0
    """Between samples of the engines' load."""
