"""Carries pools from the discovery to Envoy and to the core, in the order that loses no request.

Coming: Envoy first; the core picks an endpoint only once Envoy has acknowledged it. Going: the
core first; Envoy keeps an endpoint, or a whole pool, until the last request promised to it ends.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from heliostat_extproc.discovery.catalog import Catalog, NotSyncedError, Resolution, ServedModel
from heliostat_extproc.discovery.snapshot import Snapshot
from heliostat_extproc.driver import RouterDriver
from heliostat_routing.events import PoolRemoved, PoolUpdated
from heliostat_routing.settings import EndpointPhase, EndpointSettings, PolicyName

Publish = Callable[[Mapping[str, Sequence[str]]], None]
"""Tells Envoy the addresses of each pool."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """One endpoint; `pool` is None once it has left, `inflight` counts requests sent to it."""

    pool: str | None
    phase: EndpointPhase
    inflight: int


@dataclass(frozen=True, slots=True)
class EndpointsReport:
    """What this router does to every endpoint, by address, for those who want to remove some."""

    synced: bool
    endpoints: Mapping[str, EndpointReport]


class PoolSync:
    """The pools in force; `resolve` and `models` answer from the newest snapshot.

    `policy` overrides the policy of every pool. A router that has no Envoy of its own does not
    wait for one to know an endpoint.
    """

    def __init__(
        self,
        driver: RouterDriver,
        publish: Publish,
        *,
        policy: PolicyName | None = None,
        own_envoy: bool = True,
    ) -> None:
        self._driver = driver
        self._publish = publish
        self._policy = policy
        self._own_envoy = own_envoy
        self._catalog = Catalog()
        self._priorities: Mapping[tuple[str, str], int] = {}
        self._model_of_pool: dict[str, str] = {}
        self._wanted: dict[str, PoolUpdated] = {}
        self._told: dict[str, PoolUpdated] = {}
        self._published: dict[str, frozenset[str]] | None = None
        self._acked: Mapping[str, frozenset[str]] = {}
        self.restricted: frozenset[str] = frozenset()
        """The published pools that have a residency rule."""
        self.problems: tuple[str, ...] = ()

    @property
    def is_synced(self) -> bool:
        """Whether a first snapshot has come."""
        return self._published is not None

    def resolve(self, name: str) -> Resolution | None:
        """Find who serves the model of this name; NotSyncedError before the first snapshot."""
        if self._published is None:
            raise NotSyncedError
        return self._catalog.resolve(name)

    def models(self) -> Sequence[ServedModel]:
        """List every model name; NotSyncedError before the first snapshot."""
        if self._published is None:
            raise NotSyncedError
        return self._catalog.models()

    def residency(self, pool: str) -> frozenset[str] | None:
        """Name the regions and groups where a pool's requests may be served; None: anywhere."""
        wanted = self._wanted.get(pool)
        return None if wanted is None else wanted.settings.residency

    def priority_of(self, pool: str, objective: str) -> int:
        """Say which priority an objective of this name has in a pool; 0 where there is none."""
        return self._priorities.get((pool, objective), 0)

    def pool_of_model(self, model: str) -> str | None:
        """Name the pool here that serves a model of this canonical name."""
        resolved = self._catalog.resolve(model)
        if resolved is None or resolved.adapter is not None or resolved.model != model:
            return None
        return resolved.pool

    def model_of_pool(self, pool: str) -> str | None:
        """Give the canonical name of a pool's model, by which other regions know the pool."""
        return self._model_of_pool.get(pool)

    def endpoints(self) -> frozenset[str]:
        """Every endpoint that the core may pick or that still serves: those worth scraping."""
        picked = {e.address for update in self._told.values() for e in update.endpoints}
        removed = (self._published or {}).keys() - self._wanted.keys()
        leaving = {address for pool in removed for address in (self._published or {})[pool]}
        return self._driver.serving_endpoints() | picked | leaving

    def report(self) -> EndpointsReport:
        """Say of every endpoint whether it takes requests and how many it serves.

        An endpoint that has left its pool is reported as draining while it serves.
        """
        inflight = self._driver.inflight_by_endpoint()
        leaving = {
            it: EndpointReport(None, EndpointPhase.DRAINING, inflight[it]) for it in inflight
        }
        known = {
            endpoint.address: EndpointReport(pool, endpoint.phase, inflight[endpoint.address])
            for pool, update in self._told.items()
            for endpoint in update.endpoints
        }
        return EndpointsReport(self.is_synced, leaving | known)

    def apply(self, snapshot: Snapshot) -> None:
        """Put a snapshot in force."""
        self._note_problems(snapshot)
        self._catalog = snapshot.catalog
        self._priorities = snapshot.priorities
        self._model_of_pool = {it.pool: it.model for it in snapshot.catalog.names.values()}
        before, self._wanted = self._wanted, {}
        for pool in snapshot.pools:
            settings = pool.settings
            if self._policy is not None:
                settings = replace(settings, policy=self._policy)
            self._wanted[pool.key] = PoolUpdated(pool.key, settings, pool.endpoints)
        self._tell_core()
        self.sweep()
        _log_changes(before, self._wanted)

    def on_acked(self, addresses: Mapping[str, frozenset[str]]) -> None:
        """Let the core pick from these addresses of each pool: Envoy knows them."""
        self._acked = addresses
        self._tell_core()

    def sweep(self) -> None:
        """Tell Envoy what it must know now: the pools in force and whatever is still in use."""
        published = {
            pool: frozenset(endpoint.address for endpoint in update.endpoints)
            for pool, update in self._wanted.items()
        }
        before = self._published or {}
        promised = self._driver.promised_endpoints() if before else frozenset()
        open_pools = self._driver.open_pools() if before else frozenset()
        for pool, addresses in before.items():
            if pool in published:
                published[pool] |= addresses & promised
            elif pool in open_pools:
                published[pool] = addresses
        ruled = frozenset(it for it in self._wanted if self.residency(it) is not None)
        # A pool that has left keeps its rule.
        restricted = ruled | (self.restricted & (published.keys() - self._wanted.keys()))
        if (published, restricted) != (self._published, self.restricted):
            self._published, self.restricted = published, restricted
            self._publish({pool: sorted(addresses) for pool, addresses in published.items()})

    def _tell_core(self) -> None:
        for pool, wanted in self._wanted.items():
            acked = self._acked.get(pool, frozenset())
            update = wanted
            if self._own_envoy:
                endpoints = tuple(_as_known(endpoint, acked) for endpoint in wanted.endpoints)
                update = replace(wanted, endpoints=endpoints)
            if update != self._told.get(pool):
                self._told[pool] = update
                self._driver.submit(update)
        # Last: of an endpoint that is in no pool in between, the core forgets what it knows.
        for pool in [pool for pool in self._told if pool not in self._wanted]:
            del self._told[pool]
            self._driver.submit(PoolRemoved(pool))

    def _note_problems(self, snapshot: Snapshot) -> None:
        for problem in snapshot.problems:
            if problem not in self.problems:
                _log.error("manifest refused", problem=problem)
        self.problems = snapshot.problems


def _log_changes(before: Mapping[str, PoolUpdated], after: Mapping[str, PoolUpdated]) -> None:
    """Log what came, went and changed: pools, and the phases of their endpoints."""
    for pool in sorted(before.keys() - after.keys()):
        _log.info("pool removed", pool=pool)
    for pool, update in after.items():
        if pool not in before:
            _log.info("pool added", pool=pool, endpoints=len(update.endpoints))
            continue
        old, new = _phases(before[pool]), _phases(update)
        gone = sorted(old.keys() - new.keys())
        changed = {it: phase for it, phase in sorted(new.items()) if old.get(it) != phase}
        if gone or changed:
            _log.info("endpoints", pool=pool, gone=gone, now=changed)


def _phases(update: PoolUpdated) -> dict[str, str]:
    return {endpoint.address: endpoint.phase.value for endpoint in update.endpoints}


def _as_known(endpoint: EndpointSettings, acked: frozenset[str]) -> EndpointSettings:
    """Until Envoy knows a ready endpoint, requests may wait for it but not go there."""
    if endpoint.phase is not EndpointPhase.READY or endpoint.address in acked:
        return endpoint
    return replace(endpoint, phase=EndpointPhase.STARTING)
