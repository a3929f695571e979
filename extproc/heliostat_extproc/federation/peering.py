"""The links of this router to other regions, and to the other routers of its own."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from random import Random

import structlog

from heliostat_extproc.discovery.peering import DeclaredPeer, DeclaredSibling
from heliostat_extproc.federation.far_region import FarRegion
from heliostat_extproc.federation.link import FarEnd, Link, LinkSettings
from heliostat_extproc.federation.protocol import WATCH_PATH, hello_of, is_name
from heliostat_extproc.federation.publication import Publication
from heliostat_extproc.federation.pulse import Pulse
from heliostat_extproc.federation.region import Region, origin_name
from heliostat_extproc.federation.relay import BATCH_SECONDS, Relay
from heliostat_extproc.federation.reports import LinkReason, LinkState, PeerReport, SiblingReport
from heliostat_extproc.federation.resolver import Lookup, Resolver, look_up
from heliostat_extproc.federation.server import (
    Admission,
    ServerSettings,
    StateServicer,
    WatchRefusedError,
)
from heliostat_extproc.federation.sibling_router import SiblingRouter
from heliostat_extproc.federation.slots import Forwards, RelayedEvent, StateSource
from heliostat_extproc.federation.state_pb2 import Hello
from heliostat_extproc.grpc_streams.message_stream import Handler
from heliostat_routing.events import Event, PeersUpdated

Addresses = Mapping[str, tuple[str, ...]]
"""The `ip:port` addresses of each peer region's gateway."""

_SHORTEST_PAUSE_SECONDS = 0.005
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FederationSettings:
    """How often this router tells and checks; the defaults are for production."""

    link: LinkSettings = field(default_factory=LinkSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    look_seconds: float = 0.025
    """Between two looks at what this router says, however many ask."""
    check_seconds: float = 0.1
    """Between two looks at who is silent, where nobody is about to be."""
    late_seconds: float = 0.2
    """A look that is so late found this router busy, not the others silent."""
    repeat_seconds: float = 0.2
    """How often the core is told again what still holds; it believes a state for half a second."""


@dataclass(slots=True)
class _Peer:
    declared: DeclaredPeer
    far: FarRegion
    link: Link
    task: asyncio.Task[None]


@dataclass(slots=True)
class _Sibling:
    router: SiblingRouter
    link: Link
    task: asyncio.Task[None]


class Federation:
    """Keeps the core's view of other regions and of this region's other routers.

    `submit` takes `PeersUpdated`, `RegionStateReceived`, `PeerLost` and the siblings' events.
    `identity` gives this region's own URI, None while it has no certificate. `pool_of_model` names
    the pool here that serves a model. `on_reachability` hears of each region that comes and goes,
    `on_addresses` all peers' addresses whenever some have changed.
    """

    def __init__(
        self,
        region: Region,
        links_socket: Path,
        source: StateSource,
        submit: Callable[[Event], object],
        *,
        identity: Callable[[], str | None],
        pool_of_model: Callable[[str], str | None],
        on_reachability: Callable[[str, bool], None] = lambda _region, _reachable: None,
        on_addresses: Callable[[Addresses], None] = lambda _addresses: None,
        settings: FederationSettings | None = None,
        lookup: Lookup = look_up,
        clock: Callable[[], float] | None = None,
        random: Random | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._region = region
        self._links_socket = links_socket
        self._source = source
        self._submit = submit
        self._identity = identity
        self._pool_of_model = pool_of_model
        self._on_reachability = on_reachability
        self._settings = settings or FederationSettings()
        self._clock = clock or self._loop.time
        self._random = random or Random()  # noqa: S311 - jitter, not a secret
        self._hello = hello_of(region)
        self._publication = Publication(region.name, region.router, region.epoch)
        self._relay = Relay(source.snapshot, self._schedule_flush)
        self._flushed_at = 0.0
        self._pulse = Pulse(self._clock)
        self._looked_at = -inf
        self._server = StateServicer(
            self._hello,
            self._publication,
            admit=self._admit,
            open_relay=self._relay.open,
            close_relay=self._relay.close,
            refresh=self._say_again,
            clock=self._clock,
            settings=self._settings.server,
        )
        self._resolver = Resolver(on_addresses, lookup=lookup)
        self._peers: dict[str, _Peer] = {}
        self._siblings: dict[str, _Sibling] = {}

    @property
    def services(self) -> dict[str, Handler]:
        """The State service, for this router's own Envoy only."""
        return {WATCH_PATH: self._server.watch}

    def apply(self, peers: Collection[DeclaredPeer], siblings: Collection[DeclaredSibling]) -> None:
        """Make these all the peers and siblings; tell the core of the peers."""
        wanted_peers = {it.settings.region: it for it in peers}
        wanted_siblings = {it.name: it for it in siblings if it.name != self._region.router}
        for region in self._peers.keys() - wanted_peers.keys():
            self._drop_peer(region)
        for name in self._siblings.keys() - wanted_siblings.keys():
            self._drop_sibling(name)
        self._submit(PeersUpdated(tuple(it.settings for it in wanted_peers.values())))
        for region, declared in wanted_peers.items():
            if region in self._peers:
                self._peers[region].declared = declared
                self._peers[region].link.redirect(declared.digest)
            else:
                self._peers[region] = self._open_peer(declared)
            self._peers[region].far.on_pools_changed()
        for name, sibling in wanted_siblings.items():
            if name in self._siblings:
                self._siblings[name].link.redirect(sibling.digest)
            else:
                self._siblings[name] = self._open_sibling(sibling)
        self._resolver.apply({region: it.address for region, it in wanted_peers.items()})
        self._server.recheck()

    def relay(self, event: RelayedEvent) -> None:
        """Tell every sibling what has happened here."""
        self._relay.put(event)

    def relay_queues(self) -> None:
        """Tell every sibling soon what is queued here: once, whatever else happens until then."""
        self._relay.schedule()

    @property
    def is_relaying(self) -> bool:
        """Whether any sibling watches: then it must be told every event."""
        return self._relay.is_watched

    def tell(self) -> None:
        """Tell all that watch what is new, without waiting until they ask."""
        if self._server.is_watched:
            self._say()
            self._server.wake_lacking()

    def is_reachable(self, region: str) -> bool:
        """Whether requests may be on their way there: false from when it is not heard any more."""
        peer = self._peers.get(region)
        return peer is not None and peer.link.heard is not False

    def reports(self) -> tuple[PeerReport, ...]:
        """Describe the link to each peer region."""
        forwards = self._source.forwards()
        return tuple(
            self._report(peer, forwards.get(region, Forwards()))
            for region, peer in sorted(self._peers.items())
        )

    def sibling_reports(self) -> tuple[SiblingReport, ...]:
        """Describe the link to each sibling."""
        return tuple(
            SiblingReport(
                router=name,
                state=_state(sibling.link, sibling.router.reason),
                reason=sibling.router.reason,
                round_trip_seconds=sibling.link.liveness.round_trip_seconds,
                last_seen_seconds=self._last_seen_seconds(sibling.link),
            )
            for name, sibling in sorted(self._siblings.items())
        )

    def live_routers(self) -> tuple[str, ...]:
        """Name this router and every sibling that is heard: those that share the scrapes."""
        heard = (name for name, sibling in self._siblings.items() if sibling.link.heard)
        return (self._region.router, *sorted(heard))

    async def run(self) -> None:
        """Keep all links until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_checking())
                group.create_task(self._keep_repeating())
        finally:
            for region in list(self._peers):
                self._close(self._peers.pop(region))
            for name in list(self._siblings):
                self._close(self._siblings.pop(name))
            self._resolver.close()

    # What is told

    def _say_again(self) -> None:
        if self._clock() >= self._looked_at + self._settings.look_seconds:
            self._say()

    def _say(self) -> None:
        self._looked_at = self._clock()
        try:
            self._publication.say(self._source.state())
        except Exception:  # what was told last grows stale there; the router goes on
            _log.exception("own state failed")

    def _pass_on_siblings(self) -> None:
        """What siblings say of themselves is told to other regions as it is."""
        slots = [sibling.router.slot for sibling in self._siblings.values()]
        self._publication.pass_on({slot.writer: slot for slot in slots if slot is not None})

    def _schedule_flush(self) -> None:
        self._loop.call_at(self._flushed_at + BATCH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._flushed_at = self._loop.time()
        queues = self._source.queues()
        if queues is not None:
            self._relay.put(queues)
        self._relay.on_flushed()
        self._server.wake_siblings()

    def _admit(self, identity: str, hello: Hello) -> Admission:
        """Say who watches; a region's routers speak for their own region only."""
        if not (is_name(hello.router) and is_name(hello.region)):
            raise WatchRefusedError("the hello names no router")
        name = origin_name(hello.region, hello.router)
        if identity == self._identity() and hello.region == self._region.name:
            return Admission(name, is_sibling=True)
        peer = self._peers.get(hello.region)
        if peer is None or peer.declared.identity != identity:
            raise WatchRefusedError("the identity is not that of a peer which this region declares")
        return Admission(name, is_sibling=False)

    # Links

    async def _keep_checking(self) -> None:
        settings = self._settings
        checked_at, excused = self._clock(), False
        while True:
            await asyncio.sleep(self._check_pause_seconds())
            now = self._clock()
            late = now - checked_at > settings.check_seconds + settings.late_seconds
            checked_at, excused = now, late and not excused
            if not excused:
                for link in self._links():
                    link.check(now, self._silence_seconds)

    def _check_pause_seconds(self) -> float:
        """Wait until the next regular look, or until a link may be silent."""
        now, silence_seconds = self._clock(), self._silence_seconds
        quiet_seconds = [link.quiet_seconds(now, silence_seconds) for link in self._links()]
        regular_seconds = self._pulse.pause_seconds(self._settings.check_seconds)
        return min(regular_seconds, max(_SHORTEST_PAUSE_SECONDS, min(quiet_seconds, default=inf)))

    async def _keep_repeating(self) -> None:
        while True:
            await asyncio.sleep(self._pulse.pause_seconds(self._settings.repeat_seconds))
            for peer in list(self._peers.values()):
                peer.far.repeat()

    def _links(self) -> list[Link]:
        peers, siblings = self._peers.values(), self._siblings.values()
        return [peer.link for peer in peers] + [sibling.link for sibling in siblings]

    def _link_count(self) -> int:
        return len(self._peers) + len(self._siblings)

    @property
    def _silence_seconds(self) -> float:
        return self._settings.link.silence_seconds(self._link_count())

    def _ping_pause_seconds(self) -> float:
        interval_seconds = self._settings.link.ping_interval_seconds(self._link_count())
        return self._pulse.pause_seconds(interval_seconds)

    def _open_peer(self, declared: DeclaredPeer) -> _Peer:
        region = declared.settings.region
        far = FarRegion(
            region,
            origin_name(self._region.name, self._region.router),
            submit=self._submit,
            pool_of_model=self._pool_of_model,
            on_reachability=self._on_reachability,
        )
        hurry = partial(self._resolver.hurry, region)
        far.link = link = self._link(region, declared.digest, far, hurry)
        return _Peer(declared, far, link, asyncio.create_task(link.run()))

    def _open_sibling(self, declared: DeclaredSibling) -> _Sibling:
        name = declared.name
        router = SiblingRouter(
            name, self._region, submit=self._submit, on_slot=self._pass_on_siblings
        )
        router.link = link = self._link(name, declared.digest, router, lambda: None, limited=False)
        return _Sibling(router, link, asyncio.create_task(link.run()))

    def _link(
        self,
        destination: str,
        declaration: str,
        far_end: FarEnd,
        on_failed: Callable[[], None],
        *,
        limited: bool = True,
    ) -> Link:
        return Link(
            destination,
            declaration,
            self._links_socket,
            self._hello,
            far_end,
            settings=self._settings.link,
            pause_seconds=self._ping_pause_seconds,
            clock=self._clock,
            random=self._random,
            limited=limited,
            on_failed=on_failed,
        )

    def _drop_peer(self, region: str) -> None:
        """It is no peer any more: it gets nothing new, and what runs there runs to its end."""
        self._close(self._peers.pop(region))

    def _drop_sibling(self, name: str) -> None:
        sibling = self._siblings.pop(name)
        self._close(sibling)
        sibling.router.on_broken()

    def _close(self, far: _Peer | _Sibling) -> None:
        far.task.cancel()

    # Reports

    def _report(self, peer: _Peer, forwards: Forwards) -> PeerReport:
        region, reason = peer.far.region, peer.far.reason
        if not peer.link.heard and region not in self._resolver.addresses:
            reason = LinkReason.UNRESOLVED
        origins = f"{region}/"
        received = self._source.received()
        return PeerReport(
            region=region,
            state=_state(peer.link, reason),
            reason=reason,
            round_trip_seconds=peer.link.liveness.round_trip_seconds,
            last_seen_seconds=self._last_seen_seconds(peer.link),
            sent=forwards.sent,
            received=sum(n for origin, n in received.items() if origin.startswith(origins)),
            refused=forwards.refused,
            identity=peer.declared.identity,
            address=peer.declared.address,
            writers=peer.far.writers,
            pools=peer.far.pools(),
        )

    def _last_seen_seconds(self, link: Link) -> float | None:
        heard_at = link.liveness.heard_at
        return None if heard_at is None else max(0.0, self._clock() - heard_at)


def _state(link: Link, reason: LinkReason) -> LinkState:
    if not link.heard:
        return LinkState.UNREACHABLE
    return LinkState.CONNECTED if reason is LinkReason.HEARD else LinkState.DEGRADED
