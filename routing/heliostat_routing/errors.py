"""What can go wrong in the core: only the caller's mistakes."""


class RoutingError(Exception):
    """Base of all errors of the routing core."""


class DuplicateTicketError(RoutingError):
    """A ticket arrived while it was still open."""

    def __init__(self, ticket: int) -> None:
        super().__init__(f"ticket {ticket} is already open")
        self.ticket = ticket


class RecordingError(RoutingError):
    """A recorded line is not what the recorder writes."""
