"""What the routers of one region relay to each other, so that all keep one view.

Each sibling that watches has a bounded queue of events. Where it cannot be taken as fast as it
fills, it is dropped, and replaced by a snapshot of all that the sibling must know.
"""

from collections import deque
from collections.abc import Callable, Iterable

from xxhash import xxh3_64_intdigest

from heliostat_extproc.federation.relay_wire import relayed_message
from heliostat_extproc.federation.slots import RelayedEvent
from heliostat_extproc.federation.state_pb2 import Relayed

BATCH_SECONDS = 0.005
"""Between two batches at least: an event that comes after a pause goes at once."""
BATCH_BYTES = 256 * 1024
QUEUE_BYTES = 4 * 1024 * 1024


class RelayQueue:
    """The events for one sibling. It begins with a snapshot."""

    def __init__(
        self, snapshot: Callable[[], Iterable[RelayedEvent]], *, most_bytes: int = QUEUE_BYTES
    ) -> None:
        self._snapshot = snapshot
        self._most_bytes = most_bytes
        self._waiting: deque[tuple[Relayed, int]] = deque()
        self._bytes = 0
        self._anew = True
        self.overflows = 0
        """How often the sibling was too slow."""

    @property
    def has_more(self) -> bool:
        """Whether there is something to take."""
        return self._anew or bool(self._waiting)

    def put(self, message: Relayed, size_bytes: int) -> None:
        """Append an event."""
        if self._anew:
            return  # the snapshot will have it
        self._waiting.append((message, size_bytes))
        self._bytes += size_bytes
        if self._bytes > self._most_bytes:
            self._waiting.clear()
            self._bytes, self._anew = 0, True
            self.overflows += 1

    def take(self) -> tuple[bool, list[Relayed]]:
        """Take the next batch, and whether it begins with everything."""
        anew, self._anew = self._anew, False
        if anew:
            for event in self._snapshot():
                message = relayed_message(event)
                self._waiting.append((message, message.ByteSize()))
        batch: list[Relayed] = []
        batch_bytes = 0
        while self._waiting and batch_bytes < BATCH_BYTES:
            message, size_bytes = self._waiting.popleft()
            batch.append(message)
            batch_bytes += size_bytes
        self._bytes = max(0, self._bytes - batch_bytes)
        return anew, batch


class Relay:
    """The queues of all siblings that watch. `schedule` makes `flush` be called, soon."""

    def __init__(
        self, snapshot: Callable[[], Iterable[RelayedEvent]], schedule: Callable[[], None]
    ) -> None:
        self._snapshot = snapshot
        self._schedule = schedule
        self._queues: list[RelayQueue] = []
        self._scheduled = False

    @property
    def is_watched(self) -> bool:
        """Whether there is any queue."""
        return bool(self._queues)

    def open(self) -> RelayQueue:
        """Begin a sibling's queue."""
        queue = RelayQueue(self._snapshot)
        self._queues.append(queue)
        return queue

    def close(self, queue: RelayQueue) -> None:
        """End a sibling's queue."""
        self._queues.remove(queue)

    def put(self, event: RelayedEvent) -> None:
        """Tell every sibling."""
        if not self._queues:
            return
        message = relayed_message(event)
        size_bytes = message.ByteSize()
        for queue in self._queues:
            queue.put(message, size_bytes)
        self.schedule()

    def schedule(self) -> None:
        """Let a batch go soon."""
        if self._queues and not self._scheduled:
            self._scheduled = True
            self._schedule()

    def on_flushed(self) -> None:
        """What was put by now is being taken."""
        self._scheduled = False


def scrape_owner(address: str, live_routers: Iterable[str]) -> str | None:
    """Which router scrapes this endpoint: all that know the same routers say the same.

    Where a router comes or goes, only the endpoints that it gets or had change hands.
    """
    return max(live_routers, key=lambda router: (_rank(address, router), router), default=None)


def _rank(address: str, router: str) -> int:
    return xxh3_64_intdigest(f"{router}\0{address}".encode())
