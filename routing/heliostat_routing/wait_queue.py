"""The requests of one pool that no endpoint has taken yet.

A queued request either takes whichever endpoint frees, or is held for one busy endpoint that holds
its prefix. The two kinds are kept apart, so that a request that prefers to wait never stands in the
way of one that would go anywhere; and so are those for different LoRA adapters, which not every
endpoint can take.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import islice

from heliostat_routing.flight import Flight


def _age_order(flight: Flight) -> tuple[float, int]:
    return flight.arrived_at, flight.ticket


class WaitQueue:
    """Flights in order of arrival: those that take any endpoint, and those held for one slot."""

    __slots__ = ("_any", "_held", "_held_seconds", "_size", "changes")

    def __init__(self) -> None:
        self.changes = 0
        """How often a flight has come in or gone out."""
        self._any: dict[str | None, list[Flight]] = {}
        self._held: dict[int, list[Flight]] = {}
        self._held_seconds: dict[int, float] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, flight: Flight, held_for: int | None, held_seconds: float = 0.0) -> None:
        """Queue a flight at the place of its arrival, for one slot or for any."""
        flight.queued, flight.held_for, flight.held_seconds = True, held_for, held_seconds
        if held_for is None:
            room = self._any.setdefault(flight.request.adapter, [])
        else:
            room = self._held.setdefault(held_for, [])
            self._held_seconds[held_for] = self._held_seconds.get(held_for, 0.0) + held_seconds
        insort(room, flight, key=_age_order)
        self._size += 1
        self.changes += 1

    def remove(self, flight: Flight) -> None:
        """Take a flight out."""
        held_for, adapter = flight.held_for, flight.request.adapter
        room = self._any[adapter] if held_for is None else self._held[held_for]
        del room[bisect_left(room, _age_order(flight), key=_age_order)]
        if held_for is not None:
            self._held_seconds[held_for] -= flight.held_seconds
            if not room:
                del self._held[held_for], self._held_seconds[held_for]
        elif not room:
            del self._any[adapter]
        flight.queued, flight.held_for = False, None
        self._size -= 1
        self.changes += 1

    def move(self, flight: Flight, held_for: int | None, held_seconds: float = 0.0) -> None:
        """Change what a queued flight waits for."""
        if flight.held_for != held_for:
            self.remove(flight)
            self.add(flight, held_for, held_seconds)

    def has_any_for(self, slot: int) -> bool:
        """Whether a flight waits that this slot may serve, its adapter aside."""
        return bool(self._any) or slot in self._held

    def window(self, slot: int, takes: Callable[[str | None], bool], most: int) -> list[Flight]:
        """The oldest flights that this slot may serve: up to `most` of each kind, by arrival.

        `takes` says whether the slot serves an adapter.
        """
        anywhere = (room for adapter, room in self._any.items() if takes(adapter))
        held = (flight for flight in self.held(slot, most) if takes(flight.request.adapter))
        return sorted([*_oldest(anywhere, most), *held], key=_age_order)

    def oldest(self, most: int) -> list[Flight]:
        """The oldest flights that take any endpoint."""
        if not self._any:
            return []
        return list(_oldest(self._any.values(), most))

    def newest(self, most: int) -> list[Flight]:
        """The newest flights that take any endpoint, the very newest first."""
        rooms = (reversed(room[-most:]) for room in self._any.values())
        return list(islice(merge(*rooms, key=_age_order, reverse=True), most))

    def held(self, slot: int, most: int) -> list[Flight]:
        """The oldest flights held for this slot."""
        return self._held.get(slot, [])[:most]

    def heads(self) -> Iterator[tuple[int, Flight]]:
        """Each slot that flights are held for, and the oldest of them."""
        return ((slot, room[0]) for slot, room in self._held.items())

    def ahead_seconds(self, flight: Flight, slot: int) -> float:
        """Prefill of the flights held for this slot that are older than this one, about."""
        room = self._held.get(slot)
        if not room:
            return 0.0
        before = bisect_left(room, _age_order(flight), key=_age_order)
        return self._held_seconds[slot] * before / len(room)

    def unhold(self, slot: int) -> None:
        """Let all flights held for this slot take any endpoint."""
        for flight in list(self._held.get(slot, ())):
            self.move(flight, None)


def _oldest(rooms: Iterable[list[Flight]], most: int) -> Iterator[Flight]:
    return islice(merge(*(room[:most] for room in rooms), key=_age_order), most)
