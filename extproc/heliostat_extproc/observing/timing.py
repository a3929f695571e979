"""What Envoy's log says of a request's time, beyond what the core learns from."""

from typing import NamedTuple


class Timing(NamedTuple):
    """What Envoy says of a request's time, from the moment that it had all of it."""

    sent_seconds: float | None
    """Until its first byte went to who has answered."""
    total_seconds: float | None
    """Until the end of the answer."""
    status: int
