"""Another region, as its routers describe it on one stream after the other: told to the core."""

import asyncio
from collections.abc import Callable, Iterable
from math import inf

from heliostat_extproc.federation.link import Link, LinkError
from heliostat_extproc.federation.protocol import BLOCK_KEY_SCHEME, is_name
from heliostat_extproc.federation.reception import Reception, RegionView
from heliostat_extproc.federation.reports import LinkReason, RemotePool
from heliostat_extproc.federation.slots import Slot
from heliostat_extproc.federation.state_pb2 import Hello, WatchResponse
from heliostat_routing.capacity import PoolCapacity, combine
from heliostat_routing.events import Event, PeerLost, RegionStateReceived

Capacities = tuple[tuple[str, PoolCapacity], ...]

TELL_SECONDS = 0.05
"""Between two times at which the core is told what is new: each makes it think."""


class FarRegion:
    """What one region says. `link` is set once, right after it is made.

    A silent region's state is forgotten, and the core hears of it as lost. While it is heard,
    `repeat` tells the core again that what it has said still holds. However often a region says
    other things, the core hears of each router there once in `TELL_SECONDS`.
    """

    link: Link

    def __init__(
        self,
        region: str,
        own_origin: str,
        *,
        submit: Callable[[Event], object],
        pool_of_model: Callable[[str], str | None],
        on_reachability: Callable[[str, bool], None],
    ) -> None:
        self.region = region
        self._own_origin = own_origin
        self._submit = submit
        self._pool_of_model = pool_of_model
        self._on_reachability = on_reachability
        self._block_keys_differ = False
        self._reception = self._receive_anew()
        self._view = RegionView()
        self._untold: dict[str, None] = {}
        """Routers there that have said what the core has not been told."""
        self._told_at = -inf
        self._pause: asyncio.TimerHandle | None = None

    @property
    def reason(self) -> LinkReason:
        """Why the link is as it is."""
        if not self.link.heard:
            return self.link.problem
        if self._block_keys_differ:
            return LinkReason.BLOCK_KEYS_DIFFER
        return LinkReason.STATE_REFUSED if self._reception.refused else LinkReason.HEARD

    @property
    def writers(self) -> tuple[str, ...]:
        """The region's routers whose state is known."""
        return tuple(sorted(self._view.slots))

    def pools(self) -> tuple[RemotePool, ...]:
        """Describe the pools there whose models are served here too, by the models' names."""
        said: dict[str, list[PoolCapacity]] = {}
        for slot in self._view.slots.values():
            for model, pool in slot.state.pools.items():
                if not pool.draining:
                    said.setdefault(model, []).append(pool.capacity)
        return tuple(_remote_pool(model, combine(said[model])) for model in sorted(said))

    def on_hello(self, hello: Hello) -> None:
        """A stream begins, of which nothing is known yet."""
        if hello.region != self.region or not is_name(hello.router):
            raise LinkError(LinkReason.WRONG_PLACE, f"it is {hello.region[:100]!r}")
        self._block_keys_differ = hello.block_key_scheme != BLOCK_KEY_SCHEME
        self._reception = self._receive_anew()

    def _receive_anew(self) -> Reception:
        return Reception(self.region, heads=not self._block_keys_differ, use=self._is_served_here)

    def _is_served_here(self, model: str) -> bool:
        return self._pool_of_model(model) is not None

    def on_pools_changed(self) -> None:
        """Hear everything again where more of it is of use now."""
        left_out = self._reception.left_out
        if any(map(self._is_served_here, left_out)):
            left_out.clear()
            self.link.restart()

    def on_response(self, response: WatchResponse) -> None:
        """Take over what is new; the core hears of it soon, if the region is heard."""
        if response.slots or response.gone_writers or response.HasField("hello"):
            self._reception.receive(response.slots, response.gone_writers)
            self._untold.update(dict.fromkeys(self._view.take(self._reception.slots)))
            if self.link.heard and self._pause is None:
                self._tell_new()

    def on_heard(self, *, heard: bool) -> None:
        """Tell the core."""
        if heard:
            self._view.take(self._reception.slots)
            self.repeat()
        else:
            self._view.clear()
            self._untold.clear()
            self._submit(PeerLost(self.region))

    def on_reached(self, *, reached: bool) -> None:
        """What runs there goes on while its gateway answers, also without its router."""
        self._on_reachability(self.region, reached)

    def on_broken(self) -> None:
        """A stream that breaks says nothing of the region: its silence does.

        What the core has not been told comes with what is repeated.
        """
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def repeat(self) -> None:
        """Tell the core all that still holds."""
        if self.link.heard:
            self._untold.clear()
            self._tell(self._view.slots.values())

    def _tell_new(self) -> None:
        """Tell the core what is new, if anything is, or a while after the last time."""
        loop, self._pause = asyncio.get_running_loop(), None
        if loop.time() < self._told_at + TELL_SECONDS:
            self._pause = loop.call_at(self._told_at + TELL_SECONDS, self._tell_new)
            return
        changed, self._untold = self._untold, {}
        known = self._view.slots
        slots = [known[writer] for writer in changed if writer in known]
        if slots and self.link.heard:
            self._told_at = loop.time()
            self._tell(slots)

    def _tell(self, slots: Iterable[Slot]) -> None:
        for slot in list(slots):
            self._submit(
                RegionStateReceived(
                    region=self.region,
                    writer=slot.writer,
                    capacities=self._capacities(slot),
                    received=slot.state.received.get(self._own_origin, 0),
                    round_trip_seconds=self.link.liveness.round_trip_seconds,
                    heads=slot.state.heads,
                    epoch=slot.epoch,
                )
            )

    def _capacities(self, slot: Slot) -> Capacities:
        """The capacities under the names of the pools here that serve the same models."""
        capacities: dict[str, PoolCapacity] = {}
        for model, pool in slot.state.pools.items():
            here = None if pool.draining else self._pool_of_model(model)
            if here is not None:
                capacities.setdefault(here, pool.capacity)
        return tuple(capacities.items())


def _remote_pool(model: str, capacity: PoolCapacity) -> RemotePool:
    return RemotePool(
        pool=model,
        free=capacity.free,
        queued=capacity.queued,
        wait_seconds=capacity.wait_seconds(capacity.queued),
        load=capacity.load,
    )
