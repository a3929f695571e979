"""The conversation about a request that nobody has answered yet, and that comes in again.

Envoy itself sends it to the return listener, whole, when a peer has not served it or none of the
endpoints that a dispatch named has answered. Its headers are enough: the ticket in them finds the
request, which is still open, and the core decides on it anew.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from heliostat_extproc.conversation import Answer, Conversation, Phase, ProtocolError, Sender
from heliostat_extproc.driver import FallOpen, Verdict
from heliostat_extproc.envoy import wire
from heliostat_extproc.errors import ErrorAnswer, Reason, error_answer
from heliostat_extproc.ext_proc_wire import CONTINUE, Part, error_response
from heliostat_extproc.request_head import format_residencies, read_head
from heliostat_extproc.upb import ProcessingRequest
from heliostat_routing.commands import Enqueue

_LONGEST_TICKET = 20
"""Digits."""


@dataclass(frozen=True, slots=True)
class GivenBack:
    """The request of this ticket has come back."""

    ticket: int


class ReturnExchange(Conversation):
    """One request that has come back.

    Where its ticket is not known any more, because the router has restarted, Envoy balances it in
    the pool that its headers name.
    """

    part: Part = "request_headers"

    def __init__(self, sender: Sender) -> None:
        super().__init__(0, sender)

    def receive(self, data: bytes) -> Answer | GivenBack:
        """Take one message; raise `ProtocolError` if it makes no sense here."""
        try:
            message = ProcessingRequest.FromString(data)
        except DecodeError as error:
            raise ProtocolError("a message is not a ProcessingRequest") from error
        kind = message.WhichOneof("request")
        if kind == "request_headers" and self.phase is Phase.HEADERS:
            return self._on_headers(read_head(message.request_headers.headers.headers))
        if kind is None or self.phase is not Phase.ANSWERED:
            raise ProtocolError(f"{kind or 'an empty message'} in phase {self.phase}")
        return CONTINUE[kind]

    def _on_headers(self, head: dict[str, str]) -> Answer | GivenBack:
        self.pool = head.get(wire.POOL_HEADER, "")
        ticket = head.get(wire.TICKET_HEADER, "")
        if not (ticket.isdecimal() and len(ticket) <= _LONGEST_TICKET):
            return self._refuse(error_answer(Reason.ROUTER_UNAVAILABLE))
        self._ticket = int(ticket)
        self._residencies = head.get(wire.RESIDENCY_HEADER)
        self.phase = Phase.ASKED
        return GivenBack(self._ticket)

    def resume(self, pool: str, residencies: Iterable[frozenset[str]]) -> None:
        """Go by what the router knows of the request, rather than by its headers."""
        self.pool = pool
        self._residencies = format_residencies(residencies)

    def answer(self, word: Verdict | Enqueue, now: float) -> Answer:
        """Put the core's word in Envoy's terms, where the pool is known by now."""
        if isinstance(word, FallOpen) and not self.pool:
            return self._refuse(error_answer(Reason.ENDPOINT_FAILED))
        return super().answer(word, now)

    def _refuse(self, answer: ErrorAnswer) -> Answer:
        """Answer for good: Envoy has nowhere else to try."""
        self.phase = Phase.ANSWERED
        self.finished = True
        self.outcome = answer.reason
        return error_response(answer, final=True)
