"""What a policy sees and what it answers."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from heliostat_routing.explanation import Explanation
from heliostat_routing.fleet import Fleet
from heliostat_routing.flight import Flight
from heliostat_routing.peers import Peers, Remote
from heliostat_routing.pool import Pool
from heliostat_routing.prefix_index import PrefixIndex


@dataclass(frozen=True, slots=True)
class World:
    """The state that policies read."""

    fleet: Fleet
    index: PrefixIndex
    peers: Peers


@dataclass(frozen=True, slots=True)
class Pick:
    """A decision about one request.

    `slots` are the endpoints to try in order; empty means wait. `hold_for` is then the slot that is
    worth waiting for, and `held_seconds` the prefill that the request will bring there. With
    `remote` the request is to go to another region instead.
    """

    slots: tuple[int, ...]
    explanation: Explanation
    hold_for: int | None = None
    held_seconds: float = 0.0
    remote: Remote | None = None


class Choice(NamedTuple):
    """What a freed endpoint takes of the queued requests that it was offered."""

    taken: tuple[Flight, Pick] | None
    reluctant: list[Flight]
    """Where it takes none: those that it could take, and that prefer another place."""


class Policy(Protocol):
    """Chooses endpoints. It may keep state of its own, but changes nothing that it is shown."""

    def pick(self, flight: Flight, pool: Pool, eligible: int, now: float) -> Pick:
        """Decide for one request. `eligible` is never empty."""
        ...

    def leave(
        self, flight: Flight, pool: Pool, eligible: int, queue_seconds: float, now: float
    ) -> tuple[float, Pick] | None:
        """Another region for a request that would wait so long here, and the seconds it gains.

        None if it had better stay. `eligible` may be empty.
        """
        ...

    def choose(self, window: list[Flight], pool: Pool, slot: int, now: float) -> Choice:
        """Which of these queued requests the freed slot takes, if any."""
        ...
