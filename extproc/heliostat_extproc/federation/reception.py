"""What a watched router says, put together again; nothing of it is believed that makes no sense.

A `Reception` follows one stream, of which it knows the base of each difference. A `RegionView`
outlives the streams to a region, which may lead to one router after the other.
"""

from collections.abc import Callable, Iterable, Mapping

from heliostat_extproc.federation.protocol import (
    MOST_ADAPTERS,
    MOST_COUNT,
    MOST_HEADS,
    MOST_ORIGINS,
    MOST_POOLS,
    MOST_WRITERS,
    is_name,
)
from heliostat_extproc.federation.slots import OwnState, PoolState, Slot
from heliostat_extproc.federation.state_pb2 import Received
from heliostat_extproc.federation.state_pb2 import Slot as SlotMessage
from heliostat_extproc.federation.state_wire import StateError, parse_pool


class Reception:
    """The slots that one stream has brought: of the pools, those whose model is of `use`.

    Without `heads` the keys of prefixes are left out.
    """

    def __init__(
        self,
        region: str,
        *,
        heads: bool = True,
        use: Callable[[str], bool] = lambda _model: True,
    ) -> None:
        self._region = region
        self._heads = heads
        self._use = use
        self.left_out: set[str] = set()
        """Models that were of no use. What was said of them is not known."""
        self.slots: dict[str, Slot] = {}
        self.refused = 0
        """Parts that were left out because they made no sense, or were too many."""

    def receive(self, slots: Iterable[SlotMessage], gone_writers: Iterable[str] = ()) -> None:
        """Take over what has changed."""
        for writer in gone_writers:
            self.slots.pop(writer, None)
        for message in slots:
            try:
                self.slots[message.writer] = self._read(message)
            except StateError:
                self.refused += 1

    def _read(self, message: SlotMessage) -> Slot:
        known = self.slots.get(message.writer)
        if message.region not in ("", self._region):
            raise StateError("a slot is of another region")
        if known is None and not (message.whole and is_name(message.writer)):
            raise StateError("a difference has no base")
        if known is None and len(self.slots) >= MOST_WRITERS:
            raise StateError("there are too many routers")
        if known is not None and (message.epoch, message.sequence) <= known.version:
            raise StateError("a slot is older than the one that is known")
        before = OwnState() if known is None or message.whole else known.state
        state = OwnState(
            pools=self._pools(message, before.pools),
            heads=self._read_heads(message, before.heads),
            received=self._received(message.received, before.received),
        )
        return Slot(message.writer, message.epoch, message.sequence, state)

    def _pools(
        self, message: SlotMessage, before: Mapping[str, PoolState]
    ) -> Mapping[str, PoolState]:
        if not message.pools and not message.gone_models:
            return before
        pools = dict(before)
        for model in message.gone_models:
            pools.pop(model, None)
        said = [(pool.model, pool) for pool in message.pools]
        for model, _ in said:
            pools.pop(model, None)
        adapters = sum(map(_count_adapters, pools.values()))
        for model, pool in said:
            if not self._use(model):
                self._leave_out(model)
                continue
            try:
                state = parse_pool(pool, before.get(model))
            except StateError:
                self.refused += 1
                continue
            adapters += _count_adapters(state)
            if model in pools or len(pools) >= MOST_POOLS or adapters > MOST_ADAPTERS:
                adapters -= _count_adapters(state)
                self.refused += 1
            else:
                pools[model] = state
        return pools

    def _leave_out(self, model: str) -> None:
        if is_name(model) and len(self.left_out) < MOST_POOLS:
            self.left_out.add(model)

    def _read_heads(self, message: SlotMessage, before: tuple[int, ...]) -> tuple[int, ...]:
        if not self._heads or not message.HasField("heads"):
            return before
        return tuple(message.heads.keys[:MOST_HEADS])

    def _received(
        self, messages: Iterable[Received], before: Mapping[str, int]
    ) -> Mapping[str, int]:
        received = dict(before)
        for message in messages:
            known = received.pop(message.origin, None)
            if not message.requests:
                continue
            sane = is_name(message.origin) and message.requests <= MOST_COUNT * 1000
            if sane and (known is not None or len(received) < MOST_ORIGINS):
                received[message.origin] = message.requests
            else:
                self.refused += 1
        return received


def _count_adapters(pool: PoolState) -> int:
    return len(pool.capacity.adapters or ())


class RegionView:
    """The newest slot of each router of one region."""

    def __init__(self) -> None:
        self.slots: dict[str, Slot] = {}

    def take(self, said: Mapping[str, Slot]) -> list[str]:
        """Take over all that a stream has brought so far; name the writers of what is new in it.

        A new stream may say more of the same state, if more of it is of use. A router that has not
        heard the newest of another does not bring back what is older.
        """
        for writer in [it for it in self.slots if it not in said]:
            del self.slots[writer]
        changed = []
        for writer, slot in said.items():
            known = self.slots.get(writer)
            if known is None or (slot is not known and slot.version >= known.version):
                self.slots[writer] = slot
                changed.append(writer)
        return changed

    def clear(self) -> None:
        """Forget everything: what is not heard any more is not known."""
        self.slots.clear()
