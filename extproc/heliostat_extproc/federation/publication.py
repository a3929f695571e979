"""What a router tells its watchers, and what each of them lacks of it.

There is no queue of changes: what is told is the difference between the newest state and what this
watcher has been told, whenever it can take it. A slow watcher costs nothing and misses nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from heliostat_extproc.federation.slots import OwnState, Slot
from heliostat_extproc.federation.state_pb2 import Heads, Received
from heliostat_extproc.federation.state_pb2 import Slot as SlotMessage
from heliostat_extproc.federation.state_wire import as_told, write_pool

BATCH_BYTES = 256 * 1024
"""About how much of the state is told in one message; the rest follows in the next."""


class Publication:
    """The newest slot of this router, and those of its region's other routers."""

    def __init__(self, region: str, writer: str, epoch: int) -> None:
        self.region = region
        self.own = Slot(writer, epoch, 0, OwnState())
        self.others: Mapping[str, Slot] = {}
        self.version = 0
        """Grows with each change."""
        self._said = self.own.state

    def say(self, state: OwnState) -> None:
        """Make this the state of this router."""
        if state == self._said:
            return
        told = as_told(state, self.own.state, self._said)
        self._said = state
        if told != self.own.state:
            self.own = replace(self.own, sequence=self.own.sequence + 1, state=told)
            self.version += 1

    def pass_on(self, slots: Mapping[str, Slot]) -> None:
        """Make these all the slots of the region's other routers."""
        if slots != self.others:
            self.others = dict(slots)
            self.version += 1

    def slots(self) -> dict[str, Slot]:
        """The slots of all routers of the region that are known, this one's first."""
        own = self.own.writer
        return {own: self.own} | {name: it for name, it in self.others.items() if name != own}


@dataclass(slots=True)
class Difference:
    """What a watcher lacks."""

    slots: list[SlotMessage] = field(default_factory=list)
    gone_writers: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether it lacks nothing."""
        return not self.slots and not self.gone_writers


class WatcherRecord:
    """What one watcher has been told on its stream.

    A router of another region, `origin`, is told of all routers here and of its own requests. For
    a sibling `origin` is None: it is told of this router alone, and of everyone's requests.
    """

    def __init__(self, origin: str | None) -> None:
        self.origin = origin
        self.told: dict[str, Slot] = {}
        self._version = -1

    def lacks(self, publication: Publication) -> bool:
        """Whether there may be something to tell."""
        return publication.version != self._version

    def difference(self, publication: Publication) -> Difference:
        """Take what is to be told now, as far as one message holds; count it as told."""
        difference = Difference()
        if not self.lacks(publication):
            return difference
        newest = self._wanted(publication)
        for writer in [it for it in self.told if it not in newest]:
            del self.told[writer]
            difference.gone_writers.append(writer)
        size_bytes = 0
        for writer, slot in newest.items():
            if size_bytes > BATCH_BYTES:
                return difference
            told = self.told.get(writer)
            if told is not None and slot.version < told.version:
                difference.gone_writers.append(writer)
                told = None
            if told is None or slot.state != told.state:
                message = slot_message(slot, told, publication.region)
                difference.slots.append(message)
                size_bytes += message.ByteSize()
                self.told[writer] = slot
        self._version = publication.version
        return difference

    def _wanted(self, publication: Publication) -> dict[str, Slot]:
        if self.origin is None:
            return {publication.own.writer: publication.own}
        return {
            writer: replace(slot, state=_as_for(self.origin, slot.state))
            for writer, slot in publication.slots().items()
        }


def _as_for(origin: str, state: OwnState) -> OwnState:
    """What a router of another region is told: of requests, the count of its own."""
    count = state.received.get(origin)
    return replace(state, received={} if count is None else {origin: count})


def slot_message(slot: Slot, told: Slot | None, region: str) -> SlotMessage:
    """Write a slot: all of it, or what is different from what was told."""
    before = OwnState() if told is None else told.state
    state = slot.state
    message = SlotMessage(
        writer=slot.writer,
        epoch=slot.epoch,
        sequence=slot.sequence,
        region=region if told is None else "",
        whole=told is None,
        gone_models=[model for model in before.pools if model not in state.pools],
        received=_received(state.received, before.received),
    )
    for model, pool in state.pools.items():
        known = before.pools.get(model)
        if known is not pool:
            same = known is not None and known.capacity.adapters == pool.capacity.adapters
            write_pool(message.pools.add(), model, pool, with_adapters=not same)
    if state.heads != before.heads:
        message.heads.CopyFrom(Heads(keys=state.heads))
    return message


def _received(now: Mapping[str, int], before: Mapping[str, int]) -> Iterable[Received]:
    for origin, count in now.items():
        if before.get(origin) != count:
            yield Received(origin=origin, requests=count)
    for origin in before:
        if origin not in now:
            yield Received(origin=origin)
