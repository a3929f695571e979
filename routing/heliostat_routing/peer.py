"""One other region: what its routers say of it, what is under way there, and how it has done."""

from math import inf
from typing import NamedTuple

from heliostat_routing.capacity import PoolCapacity, combine
from heliostat_routing.events import Outcome, PeerSettings, RegionStateReceived, RequestMeasured
from heliostat_routing.prefix_heads import MOST_HEADS
from heliostat_routing.standing import Standing
from heliostat_routing.transit import LOST_SECONDS, Transit
from heliostat_routing.views import PeerReason, PeerView

STATE_LIMIT_SECONDS = 0.5
"""A state older than this, beside its way, says nothing any more."""
FORGOTTEN_SECONDS = 60.0
"""A router of a peer that is silent for so long is gone, with all that it has counted."""
MOST_WRITERS = 64
"""Routers of one region that are heard at a time."""


class _Report(NamedTuple):
    """What one router of a region said last."""

    heard_at: float
    capacities: dict[str, PoolCapacity]
    received: int
    heads: tuple[int, ...]
    epoch: int


class Peer:
    """One other region, as its routers describe it and as requests have found it."""

    def __init__(self, settings: PeerSettings, slot: int, now: float) -> None:
        self.settings = settings
        self.slot = slot
        self.capacities: dict[str, PoolCapacity] = {}
        self.heads: frozenset[int] = frozenset()
        """Block keys of prefixes that are asked for most there."""
        self.transit = Transit()
        self.standing = Standing()
        self.forwarded_at = 0.0
        """The stamp of the last request that was sent there."""
        self._heard_at = -inf
        self._known_since = now
        self._lost = False
        self._round_trip_seconds: float | None = None
        self._reports: dict[str, _Report] = {}

    @property
    def round_trip_seconds(self) -> float:
        """As measured, else as assumed."""
        measured = self._round_trip_seconds
        return self.settings.round_trip_seconds if measured is None else measured

    def on_state(self, event: RegionStateReceived, now: float) -> None:
        """Take over what one of the region's routers says."""
        before = self._reports.get(event.writer)
        if before is None and len(self._reports) >= MOST_WRITERS:
            return
        self._heard_at, self._lost = now, False
        if event.round_trip_seconds is not None:
            self._round_trip_seconds = event.round_trip_seconds
        if before is not None:
            begun_anew = event.epoch != before.epoch or event.received < before.received
            counted_before = 0 if begun_anew else before.received
            self.transit.receive(event.received - counted_before, now)
        capacities = {name: capacity for name, capacity in event.capacities if capacity.serves}
        self._reports[event.writer] = _Report(
            now, capacities, event.received, event.heads, event.epoch
        )
        self._combine(now)

    def on_lost(self, now: float) -> None:
        """It is not reached any more: nothing that it has said holds until it says more.

        What is under way comes back or is being served; what its routers have counted until they
        are heard again is none of what is sent from then on.
        """
        if not self._lost:
            self.standing.on_unreached(self.round_trip_seconds, now)
        self._lost = True
        self._reports.clear()
        self.transit.clear()

    def on_forward(
        self, ticket: int, pool: str, hold_seconds: float, stamp: float, now: float
    ) -> None:
        """Note a request that is sent there, and may be held so long."""
        self.forwarded_at = stamp
        self.transit.send(ticket, pool, now)
        self.standing.on_forward(ticket, hold_seconds + self.round_trip_seconds, now)

    def on_return(self, ticket: int, sent_at: float, now: float) -> None:
        """Note a request that has come back unserved."""
        self.transit.leave(ticket, now)
        self.standing.on_return(ticket, sent_at, self.round_trip_seconds, now, lost=self._lost)

    def on_measured(self, event: RequestMeasured, sent_at: float, now: float) -> None:
        """Note how a request has ended that was sent there."""
        match event.outcome:
            case Outcome.SERVED:
                self.standing.on_served()
            case Outcome.ENGINE_FAILED:
                self.standing.on_failed(sent_at, self.round_trip_seconds, now)
            case Outcome.REFUSED:
                self.standing.on_client_error(sent_at, now)
            case Outcome.CLIENT_ABORTED if event.ttft_seconds is not None:
                self.standing.on_output()

    def on_end(self, ticket: int) -> None:
        """Note that the stream of a request that is there is over.

        It may still be on its way: what it has reserved stays so until it is counted.
        """
        self.standing.on_end(ticket)

    def in_transit(self, pool: str, now: float) -> int:
        """Requests sent to a pool there that no state has counted yet."""
        return self.transit.count(pool, now)

    def usable(self, now: float) -> bool:
        """Whether its state can be acted on, and its standing allows it."""
        return self.reason(now) is None

    def reason(self, now: float) -> PeerReason | None:
        """Why nothing is sent there; None if something may be."""
        if self._lost:
            return PeerReason.UNREACHED
        if now - self._heard_at > STATE_LIMIT_SECONDS + self.round_trip_seconds:
            return PeerReason.UNHEARD if self._heard_at == -inf else PeerReason.SILENT
        if self.standing.backoff_seconds(now):
            return PeerReason.LEFT_ALONE
        return PeerReason.ON_TRIAL if self.standing.tried_out(now) else None

    def expected(self, pool: str, adapter: str | None, now: float) -> bool:
        """Whether it may say soon that it could serve a pool, as it did or as it is new."""
        if self._heard_at == -inf:
            return now - self._known_since <= LOST_SECONDS
        capacity = self.capacities.get(pool)
        if capacity is None or not capacity.takes(adapter):
            return False
        return now - self._heard_at <= LOST_SECONDS

    def view(self, now: float) -> PeerView:
        """What is believed of it, to read."""
        reason, standing = self.reason(now), self.standing
        return PeerView(
            region=self.settings.region,
            usable=reason is None,
            reason=reason,
            round_trip_seconds=self.round_trip_seconds,
            in_transit=self.transit.total(now),
            forwarded=standing.forwarded,
            refused=standing.refused,
            lost=standing.lost,
            backoff_seconds=standing.backoff_seconds(now),
            capacities=tuple(sorted(self.capacities.items())),
        )

    def _combine(self, now: float) -> None:
        """Put together what the routers have said that are not silent."""
        said: dict[str, list[PoolCapacity]] = {}
        heads: set[int] = set()
        limit_seconds = STATE_LIMIT_SECONDS + self.round_trip_seconds
        for writer, report in list(self._reports.items()):
            silent_seconds = now - report.heard_at
            if silent_seconds > FORGOTTEN_SECONDS:
                del self._reports[writer]
            elif silent_seconds <= limit_seconds:
                heads.update(report.heads[:MOST_HEADS])
                for name, capacity in report.capacities.items():
                    said.setdefault(name, []).append(capacity)
        self.capacities = {name: combine(views) for name, views in said.items()}
        if heads != self.heads:
            self.heads = frozenset(heads)
