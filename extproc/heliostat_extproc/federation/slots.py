"""What one router says of its pools to those that watch it.

A slot has a single writer. Readers replace an older one by a newer one and never merge two, so it
does not matter by which ways, how often and in which order slots come.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from heliostat_routing.capacity import PoolCapacity
from heliostat_routing.events import MetricsScraped, ScrapeFailed
from heliostat_routing.siblings import SiblingEvent

RelayedEvent = SiblingEvent | MetricsScraped | ScrapeFailed
"""What the routers of one region tell each other. The receiver puts in the sibling's name: what it
is on the sender's side means nothing."""


@dataclass(frozen=True, slots=True)
class PoolState:
    """One pool, which is known among regions by the canonical name of its model."""

    capacity: PoolCapacity
    draining: bool = False
    """It serves what it has, and takes nothing new."""


@dataclass(frozen=True, slots=True)
class OwnState:
    """What this router says of itself now."""

    pools: Mapping[str, PoolState] = field(default_factory=dict)
    """By the canonical names of their models. A pool that is missing serves no other region."""
    heads: tuple[int, ...] = ()
    """Block keys of the prefixes that are asked for most, the hottest first."""
    received: Mapping[str, int] = field(default_factory=dict)
    """Requests that have come from each router of other regions, REGION/ROUTER, since the start."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The state of one router, as of one instant of it."""

    writer: str
    epoch: int
    sequence: int
    """Grows with each change in one epoch."""
    state: OwnState

    @property
    def version(self) -> tuple[int, int]:
        """Orders the slots of one writer."""
        return self.epoch, self.sequence


@dataclass(frozen=True, slots=True)
class Forwards:
    """Requests that this router has sent to a region since it began."""

    sent: int = 0
    refused: int = 0
    """Of those, the ones that came back unserved."""


class StateSource(Protocol):
    """The router whose state is told. Every method is called on the event loop, and is quick."""

    def state(self) -> OwnState:
        """Say what this router says now; asked ten times a second and more while anyone watches."""
        ...

    def snapshot(self) -> Iterable[RelayedEvent]:
        """Say all that a sibling must know that knows nothing: open requests, queues, prefixes."""
        ...

    def queues(self) -> RelayedEvent | None:
        """Say what is queued, if siblings know something else; asked once for each batch."""
        ...

    def received(self) -> Mapping[str, int]:
        """Count the requests that have come from each router of other regions, for reports."""
        ...

    def forwards(self) -> Mapping[str, Forwards]:
        """Count what was sent to each region, for reports."""
        ...
