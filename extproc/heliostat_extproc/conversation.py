"""What all conversations with Envoy share: how far they are, and how the core's word is put."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from heliostat_extproc.driver import FallOpen, ShutDown, Verdict
from heliostat_extproc.engine_key import EngineKey
from heliostat_extproc.errors import ErrorAnswer, Reason, answer_for_core, error_answer
from heliostat_extproc.ext_proc_wire import (
    Part,
    PeerTerms,
    dispatch_response,
    error_response,
    forward_response,
    hold_response,
)
from heliostat_routing.commands import Dispatch, Enqueue, Forward

HOLD_MARGIN_SECONDS = 2.0
"""Envoy waits this much longer than the queue's deadline, so that the router's word comes first."""


class ProtocolError(Exception):
    """Envoy sent what its configuration for Heliostat rules out; the stream cannot go on."""


Answer = bytes | tuple[bytes, ...]
"""What is written to Envoy: one message, or several in order, or none."""


class Phase(StrEnum):
    """How far the conversation has come."""

    HEADERS = "headers"
    BODY = "body"
    ASKED = "asked"
    HELD = "held"
    ANSWERED = "answered"


class Outcome(StrEnum):
    """How a request was answered, where it was not refused for a `Reason`."""

    DISPATCHED = "dispatched"
    FORWARDED = "forwarded"
    FELL_OPEN = "fell-open"
    ANSWERED_HERE = "answered-here"
    CLIENT_LEFT = "client-left"
    """It ended before it was answered."""


@dataclass(frozen=True, slots=True)
class Sender:
    """What every answer of this router carries."""

    router: str = ""
    """Its name, for the peers that it forwards to."""
    engine_key: EngineKey | None = None
    forwards: bool = True
    """Whether who is answered can send a request to another region: our own Envoy can."""
    fallbacks: int | None = None
    """How many endpoints it may be told for its own retries; None: as the pool says."""


class Conversation:
    """A conversation about one request; subclasses read Envoy's messages.

    `finished`: an error or a direct answer has ended the request. A request that a peer has sent is
    given back with a 503, whatever the reason: its ingress has found nothing wrong with it, and
    decides anew.
    """

    part: Part = "request_body"
    """The message that is answered with the place to go."""

    def __init__(self, ticket: int, sender: Sender) -> None:
        self._ticket = ticket
        self._sender = sender
        self._new_body: bytes | None = None
        self._residencies: str | None = None
        self._from_peer = False
        self.phase = Phase.HEADERS
        self.finished = False
        self.outcome: Outcome | Reason = Outcome.CLIENT_LEFT
        self.pool = ""
        self.model = ""
        """As the engines know it, once it is known."""
        self.tenant = ""
        """Whose request it is, where tenants alone are let in."""
        self.request_id = ""
        self.traceparent = ""

    @property
    def ticket(self) -> int:
        """The request's ticket."""
        return self._ticket

    def receive_while_held(self, data: bytes) -> None:
        """Take a message beside the core's word, for which nothing has been asked."""
        raise ProtocolError("a message while the request is held")

    def answer(self, word: Verdict | Enqueue, now: float) -> Answer:
        """Put the core's word in Envoy's terms. After `Enqueue` one more word follows."""
        if self.phase not in (Phase.ASKED, Phase.HELD):
            raise ProtocolError(f"the core has spoken in phase {self.phase}")
        if isinstance(word, Enqueue):
            self.phase = Phase.HELD
            return hold_response(max(0.0, word.deadline - now) + HOLD_MARGIN_SECONDS)
        self.phase = Phase.ANSWERED
        if isinstance(word, Dispatch):
            self.outcome = Outcome.DISPATCHED
            return self._dispatch(word.endpoints)
        if isinstance(word, Forward):
            self.outcome = Outcome.FORWARDED
            return self._forward(word)
        if isinstance(word, FallOpen):
            self.outcome = Outcome.FELL_OPEN
            return self._dispatch(())
        if isinstance(word, ShutDown):
            return self._refuse(error_answer(Reason.SHUTTING_DOWN))
        return self._refuse(answer_for_core(word.reason, word.retry_after_seconds))

    def _dispatch(self, endpoints: Iterable[str]) -> Answer:
        key = self._sender.engine_key
        return dispatch_response(
            self.pool,
            self._ticket,
            endpoints,
            self._new_body,
            None if key is None else key.authorization,
            part=self.part,
        )

    def _forward(self, word: Forward) -> Answer:
        terms = PeerTerms(self._sender.router, word.hold_seconds, self._residencies)
        return forward_response(
            word.region, self.pool, self._ticket, terms, self._new_body, part=self.part
        )

    def _refuse(self, answer: ErrorAnswer) -> Answer:
        self.phase = Phase.ANSWERED
        self.finished = True
        self.outcome = answer.reason
        return error_response(answer, 503 if self._from_peer else None)
