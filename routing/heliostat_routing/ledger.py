"""Who is in flight where: the one account of open streams.

Every open stream is counted exactly once: in the queue, or at one endpoint. Counts are changed only
by moving a ticket, so they can neither drift nor go negative.
"""

from heliostat_routing.errors import DuplicateTicketError


class Ledger:
    """Open streams by ticket, and how many each endpoint address has."""

    __slots__ = ("_inflight", "_place", "_queued")

    def __init__(self) -> None:
        self._place: dict[int, str | None] = {}
        self._inflight: dict[str, int] = {}
        self._queued = 0

    def __len__(self) -> int:
        return len(self._place)

    @property
    def queued(self) -> int:
        """Open streams without an endpoint."""
        return self._queued

    def inflight(self, address: str) -> int:
        """Open streams at this endpoint."""
        return self._inflight.get(address, 0)

    @property
    def occupied(self) -> frozenset[str]:
        """Where there are open streams."""
        return frozenset(self._inflight)

    def open(self, ticket: int) -> None:
        """Count a new stream, as yet without an endpoint.

        Raises DuplicateTicketError if the ticket is open already.
        """
        if ticket in self._place:
            raise DuplicateTicketError(ticket)
        self._place[ticket] = None
        self._queued += 1

    def assign(self, ticket: int, address: str) -> str | None:
        """Move an open stream to this endpoint; return where it was."""
        before = self._place[ticket]
        self._leave(before)
        self._place[ticket] = address
        self._inflight[address] = self._inflight.get(address, 0) + 1
        return before

    def release(self, ticket: int) -> str | None:
        """Move an open stream back to where it has no endpoint; return where it was."""
        before = self._place[ticket]
        self._leave(before)
        self._place[ticket] = None
        self._queued += 1
        return before

    def close(self, ticket: int) -> str | None:
        """Forget an open stream; return where it was."""
        before = self._place.pop(ticket)
        self._leave(before)
        return before

    def _leave(self, address: str | None) -> None:
        if address is None:
            self._queued -= 1
            return
        count = self._inflight[address] - 1
        if count:
            self._inflight[address] = count
        else:
            del self._inflight[address]
