"""What a gateway lets the router see of an answer, as events: who serves, when, and how it ends.

Gateways of others send no access log. Where they show the response instead, a retry moves the
request in the ledger, failures open breakers, and times calibrate.
"""

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

from heliostat_extproc.endpoint_picker.hints import read_served
from heliostat_routing.events import AttemptFailed, AttemptStarted, Event, Outcome, RequestMeasured


class AnswerAccount:
    """The answer to one request that was sent to an endpoint; events collect in `told`."""

    def __init__(
        self, ticket: int, named: Sequence[str], now: Callable[[], float], *, sees_body: bool
    ) -> None:
        self.told: list[Event] = []
        self._ticket = ticket
        self._named = named
        self._endpoint = named[0]
        self._now = now
        self._sees_body = sees_body
        self._sent_at = now()
        self._status = 0
        self._first_byte_at: float | None = None
        self._bytes = 0
        self._measured = False

    def on_headers(self, message: Any) -> None:
        """Take the response headers: who has answered, and whether that is a failure."""
        served = read_served(message)
        if served is not None and served != self._endpoint:
            self._move(served)
        self._status = _status(message.response_headers.headers.headers)
        if self._status >= 400 or message.response_headers.end_of_stream:
            self._measure()

    def _move(self, served: str) -> None:
        """Take that another has answered than the one that was picked: those before it have not.

        One that was not named proves nothing of those that were, and moves nothing.
        """
        self._endpoint = served
        if served in self._named:
            for tried in takewhile(lambda it: it != served, self._named):
                self.told.append(AttemptFailed(self._ticket, tried))
            self.told.append(AttemptStarted(self._ticket, served))

    def on_body(self, size_bytes: int, *, end_of_stream: bool) -> None:
        """Take a part of the body."""
        if size_bytes and self._first_byte_at is None:
            self._first_byte_at = self._now()
        self._bytes += size_bytes
        if end_of_stream:
            self._measure()

    def on_trailers(self) -> None:
        """Take the end, of which much is known only where the body was seen."""
        if self._sees_body:
            self._measure()

    def on_stream_end(self) -> None:
        """Take the end of the gateway's stream: without an end of the body, the client has left.

        Where the gateway has shown no body, nothing is known of its end.
        """
        if self._first_byte_at is not None and not self._measured:
            self._measure(Outcome.CLIENT_ABORTED)

    def _measure(self, outcome: Outcome | None = None) -> None:
        if self._measured or not self._status:
            return
        self._measured = True
        now, first_byte_at = self._now(), self._first_byte_at
        self.told.append(
            RequestMeasured(
                ticket=self._ticket,
                endpoint=self._endpoint,
                outcome=outcome or self._outcome(),
                ttft_seconds=None if first_byte_at is None else first_byte_at - self._sent_at,
                duration_seconds=now - self._sent_at,
                output_bytes=self._bytes or None,
            )
        )

    def _outcome(self) -> Outcome:
        if self._status >= 500:
            return Outcome.ENGINE_FAILED
        if self._status >= 400:
            return Outcome.REFUSED
        return Outcome.SERVED if self._bytes else Outcome.ENGINE_FAILED


def _status(headers: Any) -> int:
    for header in headers:
        if header.key == ":status":
            text = header.raw_value or header.value.encode()
            return int(text) if text.isdigit() and len(text) == 3 else 0
    return 0
