"""The room for requests at a pool's endpoints, looked at again only where something has happened.

What a pool could take is asked for many times a second, and its endpoints may be thousands.
"""

from heliostat_routing.bitmask import slots
from heliostat_routing.fleet import Fleet


class Room:
    """Of one pool. Whatever happens to an endpoint must be noted in `changed`, by its slot."""

    def __init__(self) -> None:
        self.requests = 0
        """Requests of the usual size that the endpoints have room for."""
        self.kv_capacity_tokens = 0
        self.full = 0
        """The slots that have no room for one."""
        self.changed: set[int] = set()
        self._slots = 0
        self._seen: dict[int, tuple[int, int, float]] = {}
        """Load, KV capacity and KV room that is not used, of each slot."""
        self._size = 0.0, 0.0

    def look(self, serving: int, fleet: Fleet, usual_tokens: float, growth_tokens: float) -> None:
        """Bring all in line with what these slots, which serve, have now.

        A usual request takes so many tokens, and one that runs will take so many more.
        """
        anew = serving & ~self._slots
        gone = self._slots & ~serving
        for slot in self.changed:
            anew |= serving & 1 << slot
        self.changed.clear()
        for slot in slots(gone):
            self.kv_capacity_tokens -= self._seen.pop(slot)[1]
        for endpoint in fleet.among(anew):
            capacity = endpoint.kv_capacity_tokens
            _, before, _ = self._seen.get(endpoint.slot, (0, 0, 0.0))
            self.kv_capacity_tokens += capacity - before
            unused = capacity - endpoint.kv_used_tokens()
            self._seen[endpoint.slot] = endpoint.load, capacity, unused
        size = usual_tokens, growth_tokens
        if anew or gone or size != self._size:
            self._slots, self._size = serving, size
            self._add_up(usual_tokens, growth_tokens)

    def _add_up(self, usual_tokens: float, growth_tokens: float) -> None:
        self.requests = self.full = 0
        for slot, (load, _, unused_tokens) in self._seen.items():
            spare_tokens = min(usual_tokens, load * growth_tokens)
            fits = int((unused_tokens - spare_tokens) / usual_tokens)
            if fits > 0:
                self.requests += fits
            elif load:
                self.full |= 1 << slot
            else:
                self.requests += 1
