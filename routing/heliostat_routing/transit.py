"""What is on its way to a region: sent there, and in none of its states yet.

Which of the region's routers a request comes to is its load balancer's choice, so the receipts of
all of them together settle the oldest. A request that comes back, or has been under way for too
long, is on its way no more, though it may be counted there all the same: the next receipts are
taken for those, so that none settles a younger one in their stead.
"""

from collections import OrderedDict, deque

LOST_SECONDS = 5.0
"""A request that has not been counted for so long has never come, and neither will its receipt."""


class Transit:
    """Requests under way to one region, by ticket and by pool."""

    __slots__ = ("_by_pool", "_owed", "_sent")

    def __init__(self) -> None:
        self._sent: OrderedDict[int, tuple[float, str]] = OrderedDict()
        self._by_pool: dict[str, int] = {}
        self._owed: deque[float] = deque()
        """When each left whose receipt may still come."""

    def send(self, ticket: int, pool: str, now: float) -> None:
        """Count a request that is sent."""
        self._sent[ticket] = now, pool
        self._by_pool[pool] = self._by_pool.get(pool, 0) + 1

    def leave(self, ticket: int, now: float) -> None:
        """Count a request no more that has come back, or for which nobody waits any longer."""
        sent = self._sent.pop(ticket, None)
        if sent is not None:
            self._uncount(sent[1])
            self._owed.append(now)

    def receive(self, requests: int, now: float) -> None:
        """Count so many no more, because the region has had them."""
        self._expire(now)
        for _ in range(min(requests, len(self._owed) + len(self._sent))):
            if self._owed:
                self._owed.popleft()
            else:
                self._uncount(self._sent.popitem(last=False)[1][1])

    def count(self, pool: str, now: float) -> int:
        """How many are under way to a pool there."""
        self._expire(now)
        return self._by_pool.get(pool, 0)

    def total(self, now: float) -> int:
        """How many are under way to any pool there."""
        self._expire(now)
        return len(self._sent)

    def clear(self) -> None:
        """Begin anew: nothing is under way, and nothing is owed."""
        self._sent.clear()
        self._by_pool.clear()
        self._owed.clear()

    def _expire(self, now: float) -> None:
        earliest = now - LOST_SECONDS
        while self._owed and self._owed[0] < earliest:
            self._owed.popleft()
        while self._sent:
            ticket, (sent_at, _) = next(iter(self._sent.items()))
            if sent_at >= earliest:
                break
            self.leave(ticket, now)

    def _uncount(self, pool: str) -> None:
        self._by_pool[pool] -= 1
        if not self._by_pool[pool]:
            del self._by_pool[pool]
