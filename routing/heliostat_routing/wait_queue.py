"""The requests of one pool that no endpoint has taken yet.

A queued request either takes whichever endpoint frees, or is held for one busy endpoint that holds
its prefix. The two kinds are kept apart, so that a request that prefers to wait never stands in the
way of one that would go anywhere.
"""

from bisect import bisect_left, insort

from heliostat_routing.flight import Flight


def _age_order(flight: Flight) -> tuple[float, int]:
    return flight.arrived_at, flight.ticket


class WaitQueue:
    """Flights in order of arrival: those that take any endpoint, and those held for one slot."""

    __slots__ = ("_any", "_held", "_size")

    def __init__(self) -> None:
        self._any: list[Flight] = []
        self._held: dict[int, list[Flight]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, flight: Flight, held_for: int | None) -> None:
        """Queue a flight at the place of its arrival, for one slot or for any."""
        flight.queued, flight.held_for = True, held_for
        room = self._any if held_for is None else self._held.setdefault(held_for, [])
        insort(room, flight, key=_age_order)
        self._size += 1

    def remove(self, flight: Flight) -> None:
        """Take a flight out."""
        held_for = flight.held_for
        room = self._any if held_for is None else self._held[held_for]
        del room[bisect_left(room, _age_order(flight), key=_age_order)]
        if held_for is not None and not room:
            del self._held[held_for]
        flight.queued = False
        self._size -= 1

    def move(self, flight: Flight, held_for: int | None) -> None:
        """Change what a queued flight waits for."""
        if flight.held_for != held_for:
            self.remove(flight)
            self.add(flight, held_for)

    def window(self, slot: int, most: int) -> list[Flight]:
        """The oldest flights that this slot may serve: up to `most` of each kind, by arrival."""
        return sorted(self._any[:most] + self._held.get(slot, [])[:most], key=_age_order)

    def oldest(self, most: int) -> list[Flight]:
        """The oldest flights that take any endpoint."""
        return self._any[:most]

    def held(self, slot: int, most: int) -> list[Flight]:
        """The oldest flights held for this slot."""
        return self._held.get(slot, [])[:most]

    def unhold(self, slot: int) -> None:
        """Let all flights held for this slot take any endpoint."""
        for flight in self._held.pop(slot, []):
            flight.held_for = None
            insort(self._any, flight, key=_age_order)
