"""Keeps the latest requests, each with its decisions, for whoever asks why: bounded, and sampled.

What is out of the ordinary has a place of its own, so that no flood of ordinary requests pushes
it out before somebody looks.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from heliostat_extproc.observing.request_record import Ending, RequestRecord


@dataclass(frozen=True, slots=True)
class KeepSettings:
    """How many requests are kept: about 6 KB each."""

    requests: int = 1000
    """Ordinary ones, and as many that were held, forwarded, retried or not served."""
    every: int = 1
    """Of the ordinary ones, keep one in so many: a longer time in the same memory."""


class KeptRequests:
    """The requests that can be explained."""

    def __init__(
        self, settings: KeepSettings, unfinished: Callable[[], Iterable[RequestRecord]]
    ) -> None:
        self._every = max(1, settings.every)
        self._unfinished = unfinished
        self._ordinary: deque[RequestRecord] = deque(maxlen=settings.requests)
        self._notable: deque[RequestRecord] = deque(maxlen=settings.requests)
        self._seen = 0

    def tell(self, record: RequestRecord) -> None:
        """Keep a request that has ended, if it is its turn."""
        if record.ending is Ending.ANSWERED_HERE:
            return
        if _is_notable(record):
            self._notable.append(record)
            return
        self._seen += 1
        if self._seen % self._every == 0:
            self._ordinary.append(record)

    def find(self, request_id: str) -> list[RequestRecord]:
        """Give the requests of this id, the latest first: clients may use one twice."""
        return [record for record in self._all() if record.request_id == request_id]

    def latest(self, most: int) -> list[RequestRecord]:
        """Give the latest requests, the latest first."""
        return sorted(self._all(), key=lambda record: -record.arrived_at)[:most]

    def _all(self) -> Iterator[RequestRecord]:
        for records in (tuple(self._unfinished()), self._notable, self._ordinary):
            yield from reversed(records)


def _is_notable(record: RequestRecord) -> bool:
    return bool(
        record.ending is not Ending.SERVED
        or record.held_seconds
        or record.failed_attempts
        or record.returns
    )
