"""What other routers are told of this one's core: its state, and what it does."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from heliostat_extproc.federation.relay import scrape_owner
from heliostat_extproc.federation.slots import Forwards, OwnState, PoolState, RelayedEvent
from heliostat_routing.capacity import PoolCapacity
from heliostat_routing.commands import Command
from heliostat_routing.events import Event, MetricsScraped, ScrapeFailed
from heliostat_routing.siblings import Relay
from heliostat_routing.views import PeerView


class FederatedCore(Protocol):
    """What is asked of the core: see `heliostat_routing.router.Router`."""

    @property
    def received(self) -> Mapping[str, int]:
        """How many requests have come from each router of other regions."""
        ...

    def capacities(self, now: float) -> tuple[tuple[str, PoolCapacity], ...]:
        """What each pool that serves other regions could take."""
        ...

    def heads(self) -> tuple[int, ...]:
        """The prefixes that are asked for most."""
        ...

    def busy_endpoints(self) -> Collection[str]:
        """Name those that have open requests, siblings' among them."""
        ...

    def peer_views(self, now: float) -> tuple[PeerView, ...]:
        """The state of every other region."""
        ...

    def relay(self, name: str) -> Relay:
        """What makes the words to siblings."""
        ...


class CoreState:
    """Answers the links from the core, pools by the canonical names of their models."""

    def __init__(
        self,
        core: FederatedCore,
        router: str,
        *,
        clock: Callable[[], float],
        model_of_pool: Callable[[str], str | None],
    ) -> None:
        self.relay = core.relay(router)
        self.draining = False
        """Whether other regions are told to send nothing new."""
        self._core = core
        self._clock = clock
        self._model_of_pool = model_of_pool

    def state(self) -> OwnState:
        """Say what this router says now."""
        pools = {
            model: PoolState(capacity, self.draining)
            for pool, capacity in self._core.capacities(self._clock())
            if (model := self._model_of_pool(pool)) is not None
        }
        return OwnState(pools, self._core.heads(), dict(self._core.received))

    def received(self) -> Mapping[str, int]:
        """Count the requests that have come from each router of other regions."""
        return self._core.received

    def snapshot(self) -> Iterable[RelayedEvent]:
        """Say all that a sibling must know that knows nothing."""
        return self.relay.snapshot(self._clock())

    def queues(self) -> RelayedEvent | None:
        """Say what is queued, where siblings know something else."""
        return self.relay.queues(self._clock())

    def forwards(self) -> Mapping[str, Forwards]:
        """Count what was sent to each region."""
        return {
            view.region: Forwards(view.forwarded, view.refused + view.lost)
            for view in self._core.peer_views(self._clock())
        }


class SiblingLink(Protocol):
    """The way to the other routers of this region."""

    def relay(self, event: RelayedEvent) -> None:
        """Tell every sibling what has happened here."""
        ...

    def relay_queues(self) -> None:
        """Tell every sibling soon what is queued here."""
        ...

    @property
    def is_relaying(self) -> bool:
        """Whether any sibling listens."""
        ...

    def live_routers(self) -> tuple[str, ...]:
        """Name this router and every sibling that is heard."""
        ...


class SiblingRecorder:
    """Tells siblings what the core is told and answers; follows the driver as a recorder does."""

    def __init__(self, relay: Relay, link: SiblingLink) -> None:
        self._relay = relay
        self._link = link

    def record(self, now: float, event: Event, commands: Sequence[Command]) -> None:
        """Relay what siblings must know of one step."""
        if self._link.is_relaying:
            for it in self._relay.told(event, list(commands), now):
                self._link.relay(it)
            if self._relay.queues_due:
                self._link.relay_queues()


class SharedScrapes:
    """Scrapes each endpoint from one of the region's routers, which tells the others."""

    def __init__(
        self,
        router: str,
        link: SiblingLink,
        *,
        submit: Callable[[Event], object],
        endpoints: Callable[[], Collection[str]],
        busy_endpoints: Callable[[], Collection[str]],
    ) -> None:
        self._router = router
        self._link = link
        self._submit = submit
        self._all_endpoints = endpoints
        self._busy_endpoints = busy_endpoints
        self._routers: tuple[str, ...] = ()
        self._is_own: dict[str, bool] = {}
        """Of every endpoint, among these routers."""

    def endpoints(self) -> Collection[str]:
        """Those that this router scrapes."""
        found, routers = self._all_endpoints(), self._link.live_routers()
        known = self._is_own if routers == self._routers else {}
        self._routers = routers
        self._is_own = {
            it: known[it] if it in known else scrape_owner(it, routers) == self._router
            for it in found
        }
        return [it for it in found if self._is_own[it]]

    def busy(self) -> Collection[str]:
        """Those of them, as they last were, that have open requests."""
        return [it for it in self._busy_endpoints() if self._is_own.get(it)]

    def submit(self, event: MetricsScraped | ScrapeFailed) -> None:
        """Tell the core and the siblings what a scrape has brought."""
        self._submit(event)
        self._link.relay(event)
