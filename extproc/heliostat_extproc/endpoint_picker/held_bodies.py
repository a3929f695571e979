"""What the bodies of streaming gateways take while their requests wait for a pick."""

from heliostat_extproc.errors import InputError, Reason

_RETRY_AFTER_SECONDS = 1.0


class HeldBodies:
    """The bytes of all such bodies, up to a limit."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.held_bytes = 0

    def hold(self, size: int) -> None:
        """Take in part of a body; raise InputError where there is no room."""
        if self.held_bytes + size > self._limit_bytes:
            raise InputError(
                Reason.OVERLOADED,
                "too many bodies wait for their endpoints",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        self.held_bytes += size

    def let_go(self, size: int) -> None:
        """Note that part of a body is held no longer."""
        self.held_bytes -= size
