"""All endpoints, as sets: who serves, who is available now, who carries how much.

The sets are integers with a bit per slot and change with events and timers, so that a pick reads
them and never walks the endpoints.
"""

from bisect import insort
from collections.abc import Iterable
from heapq import heappop, heappush

from heliostat_routing.bitmask import slot_from, slots
from heliostat_routing.endpoint import Endpoint
from heliostat_routing.prefill_model import PrefillModel

MOST_SUBSETS = 64
"""Subsets whose slots are remembered."""


class Fleet:
    """Endpoints by address and by slot; a slot is reused once its endpoint is gone."""

    def __init__(self) -> None:
        self.by_address: dict[str, Endpoint] = {}
        self.members = 0
        """Slots that belong to some pool; the others only finish what they have in flight."""
        self.serving = 0
        """Slots that work: breaker closed or ready to try, and responsive."""
        self.available = 0
        """Slots that would start a request at once."""
        self._by_slot: list[Endpoint | None] = []
        self._unused: list[int] = []
        self._loads: dict[int, int] = {}
        self._load_order: list[int] = []
        self._load_of: dict[int, int] = {}
        self._timers: list[tuple[float, int]] = []
        self._due: dict[int, float] = {}
        self._freed: list[int] = []
        self._cursor = 0
        self._subsets: dict[frozenset[str], int] = {}
        """The slots of subsets, until endpoints come or go."""

    def __getitem__(self, slot: int) -> Endpoint:
        endpoint = self._by_slot[slot]
        if endpoint is None:
            raise KeyError(slot)
        return endpoint

    def slots_of(self, addresses: Iterable[str]) -> int:
        """The slots of those of these addresses that are known."""
        known = (self.by_address.get(address) for address in addresses)
        return sum(1 << endpoint.slot for endpoint in known if endpoint is not None)

    def slots_of_subset(self, subset: frozenset[str]) -> int:
        """The same of a subset, which many requests share and each is often asked about."""
        mask = self._subsets.get(subset)
        if mask is None:
            if len(self._subsets) >= MOST_SUBSETS:
                self._subsets.clear()
            mask = self._subsets[subset] = self.slots_of(subset)
        return mask

    def among(self, mask: int) -> list[Endpoint]:
        """The endpoints in these slots, ascending; empty slots are passed over."""
        found = (self._by_slot[slot] for slot in slots(mask))
        return [endpoint for endpoint in found if endpoint is not None]

    def add(self, address: str, prefill: PrefillModel, now: float) -> Endpoint:
        """Give a new address a slot."""
        slot = self._unused.pop() if self._unused else len(self._by_slot)
        if slot == len(self._by_slot):
            self._by_slot.append(None)
        endpoint = Endpoint(address, slot, prefill, now)
        self._by_slot[slot] = endpoint
        self.by_address[address] = endpoint
        self._subsets.clear()
        self._set_load(endpoint)
        return endpoint

    def remove(self, endpoint: Endpoint) -> None:
        """Forget an endpoint and free its slot."""
        bit = 1 << endpoint.slot
        self._take_load(endpoint.slot)
        self.members &= ~bit
        self.serving &= ~bit
        self.available &= ~bit
        del self.by_address[endpoint.address]
        self._subsets.clear()
        self._by_slot[endpoint.slot] = None
        self._unused.append(endpoint.slot)

    def refresh(self, endpoint: Endpoint, now: float) -> None:
        """Bring the sets in line with the endpoint's state."""
        slot = endpoint.slot
        serving = endpoint.serving(now)
        available = serving and endpoint.pending(now) <= endpoint.pending_limit
        if serving != self.serving >> slot & 1:
            self.serving ^= 1 << slot
        if available != self.available >> slot & 1:
            self.available ^= 1 << slot
            if available:
                self._freed.append(slot)
        self._set_load(endpoint)
        if not available:
            self._remind(slot, endpoint.changes_at(now), now)

    def advance(self, now: float) -> None:
        """Let time free the endpoints whose instant has come."""
        timers = self._timers
        while timers and timers[0][0] <= now:
            slot = heappop(timers)[1]
            self._due.pop(slot, None)
            endpoint = self._by_slot[slot]
            if endpoint is not None:
                self.refresh(endpoint, now)

    def next_timer(self) -> float | None:
        """The next instant at which time may free an endpoint."""
        return self._timers[0][0] if self._timers else None

    def available_at(self, now: float) -> int:
        """The slots that would start a request at this instant, those that time has just freed too.

        A look: the sets stay as they are.
        """
        available = self.available
        for slot, at in self._due.items():
            if at <= now:
                endpoint = self._by_slot[slot]
                if endpoint is not None and endpoint.available(now):
                    available |= 1 << slot
        return available

    def take_freed(self) -> list[int]:
        """The slots that have become available since the last call."""
        freed = self._freed
        if freed:
            self._freed = []
        return freed

    def least_loaded(self, among: int, most: int) -> list[Endpoint]:
        """Up to `most` of these slots, lowest load first; those of one bucket take turns."""
        found: list[Endpoint] = []
        for load in self._load_order:
            mask = self._loads[load] & among
            while mask:
                slot = slot_from(mask, self._cursor)
                found.append(self[slot])
                if len(found) == most:
                    return found
                mask &= ~(1 << slot)
        return found

    def rotate(self, slot: int) -> None:
        """Let the slots after this one go first among equals."""
        self._cursor = slot + 1

    def _remind(self, slot: int, at: float | None, now: float) -> None:
        if at is not None and now < at < self._due.get(slot, float("inf")):
            self._due[slot] = at
            heappush(self._timers, (at, slot))

    def _set_load(self, endpoint: Endpoint) -> None:
        slot, load = endpoint.slot, load_bucket(endpoint.load)
        if load == self._load_of.get(slot):
            return
        self._take_load(slot)
        if load not in self._loads:
            self._loads[load] = 0
            insort(self._load_order, load)
        self._loads[load] |= 1 << slot
        self._load_of[slot] = load

    def _take_load(self, slot: int) -> None:
        load = self._load_of.pop(slot, None)
        if load is None:
            return
        mask = self._loads[load] & ~(1 << slot)
        if mask:
            self._loads[load] = mask
        else:
            del self._loads[load]
            self._load_order.remove(load)


def load_bucket(load: int) -> int:
    """Number loads so that few numbers cover many: exact up to 8, then four steps per doubling."""
    if load < 8:
        return load
    bits = load.bit_length()
    return 4 * (bits - 2) + (load >> (bits - 3) & 3)
