"""The requests of one pool that no endpoint has taken yet.

A queued request either takes whichever endpoint frees, or is held for one busy endpoint that holds
its prefix. The two kinds are kept apart, so that a request that prefers to wait never stands in the
way of one that would go anywhere; and so are those for different LoRA adapters, or for different
subsets of the endpoints, which not every endpoint can take. The order is that of priority, and of
arrival among equals.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import islice

from heliostat_routing.flight import Flight

_Demand = tuple[str | None, frozenset[str] | None]
"""What a flight asks of an endpoint: its adapter, and to be in its subset."""


def place_of(flight: Flight) -> tuple[int, float, int]:
    """Give what queued flights are ordered by: the least goes first."""
    return -flight.request.priority, flight.arrived_at, flight.ticket


def _demand_of(flight: Flight) -> _Demand:
    return flight.request.adapter, flight.request.subset


class WaitQueue:
    """Flights in their order: those that take any endpoint, and those held for one slot."""

    __slots__ = ("_any", "_held", "_held_seconds", "_size", "changes")

    def __init__(self) -> None:
        self.changes = 0
        """How often a flight has come in or gone out."""
        self._any: dict[_Demand, list[Flight]] = {}
        self._held: dict[int, list[Flight]] = {}
        self._held_seconds: dict[int, float] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, flight: Flight, held_for: int | None, held_seconds: float = 0.0) -> None:
        """Queue a flight at its place, for one slot or for any."""
        flight.queued, flight.held_for, flight.held_seconds = True, held_for, held_seconds
        if held_for is None:
            room = self._any.setdefault(_demand_of(flight), [])
        else:
            room = self._held.setdefault(held_for, [])
            self._held_seconds[held_for] = self._held_seconds.get(held_for, 0.0) + held_seconds
        insort(room, flight, key=place_of)
        self._size += 1
        self.changes += 1

    def remove(self, flight: Flight) -> None:
        """Take a flight out."""
        held_for, demand = flight.held_for, _demand_of(flight)
        room = self._any[demand] if held_for is None else self._held[held_for]
        del room[bisect_left(room, place_of(flight), key=place_of)]
        if held_for is not None:
            self._held_seconds[held_for] -= flight.held_seconds
            if not room:
                del self._held[held_for], self._held_seconds[held_for]
        elif not room:
            del self._any[demand]
        flight.queued, flight.held_for = False, None
        self._size -= 1
        self.changes += 1

    def move(self, flight: Flight, held_for: int | None, held_seconds: float = 0.0) -> None:
        """Change what a queued flight waits for."""
        if flight.held_for != held_for:
            self.remove(flight)
            self.add(flight, held_for, held_seconds)

    def has_any_for(self, slot: int) -> bool:
        """Whether a flight waits that this slot may serve, its demands aside."""
        return bool(self._any) or slot in self._held

    def window(self, slot: int, takes: Callable[[Flight], bool], most: int) -> list[Flight]:
        """The first flights that this slot may serve: up to `most` of each kind, in their order.

        `takes` says whether the slot meets what a flight demands.
        """
        anywhere = (room for room in self._any.values() if takes(room[0]))
        held = (flight for flight in self.held(slot, most) if takes(flight))
        return sorted([*_oldest(anywhere, most), *held], key=place_of)

    def oldest(self, most: int) -> list[Flight]:
        """The first flights that take any endpoint."""
        if not self._any:
            return []
        return list(_oldest(self._any.values(), most))

    def newest(self, most: int) -> list[Flight]:
        """The last flights that take any endpoint, the very last first."""
        rooms = (reversed(room[-most:]) for room in self._any.values())
        return list(islice(merge(*rooms, key=place_of, reverse=True), most))

    def last(self) -> Flight | None:
        """Give the flight that goes last of all."""
        rooms = (*self._any.values(), *self._held.values())
        return max((room[-1] for room in rooms), key=place_of, default=None)

    def held(self, slot: int, most: int) -> list[Flight]:
        """The first flights held for this slot."""
        return self._held.get(slot, [])[:most]

    def heads(self) -> Iterator[tuple[int, Flight]]:
        """Each slot that flights are held for, and the first of them."""
        return ((slot, room[0]) for slot, room in self._held.items())

    def ahead_seconds(self, flight: Flight, slot: int) -> float:
        """Prefill of the flights held for this slot that go before this one, about."""
        room = self._held.get(slot)
        if not room:
            return 0.0
        before = bisect_left(room, place_of(flight), key=place_of)
        return self._held_seconds[slot] * before / len(room)

    def unhold(self, slot: int) -> None:
        """Let all flights held for this slot take any endpoint."""
        for flight in list(self._held.get(slot, ())):
            self.move(flight, None)


def _oldest(rooms: Iterable[list[Flight]], most: int) -> Iterator[Flight]:
    return islice(merge(*(room[:most] for room in rooms), key=place_of), most)
