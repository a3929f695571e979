"""A request's conversation with a gateway of others: the endpoint picker protocol 1.0.

Such a gateway sends the body whole (BUFFERED), or in chunks that it does not wait to have answered
(FULL_DUPLEX_STREAMED); then the pick is the answer to the headers, and the body is given back in
chunks. Many send the answer to the request too, and get it back as it comes.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from google.protobuf.message import DecodeError

from heliostat_extproc.conversation import Answer, Phase, ProtocolError, Sender
from heliostat_extproc.driver import Verdict
from heliostat_extproc.endpoint_picker.answer_account import AnswerAccount
from heliostat_extproc.endpoint_picker.answers import body_answers, pick_answer
from heliostat_extproc.endpoint_picker.held_bodies import HeldBodies
from heliostat_extproc.endpoint_picker.hints import HintError, read_subset
from heliostat_extproc.endpoint_picker.names import DROPPED_REASON_HEADER
from heliostat_extproc.errors import ErrorAnswer, InputError, Reason, answer_for_input
from heliostat_extproc.exchange import Directory, Exchange, ExchangeSettings, Question
from heliostat_extproc.ext_proc_wire import CONTINUE
from heliostat_extproc.upb import ProcessingMode, ProcessingRequest
from heliostat_routing.commands import Enqueue
from heliostat_routing.events import Event

_DROPPED_REASONS = {
    Reason.QUEUE_FULL: "rejected-saturated",
    Reason.NO_ENDPOINTS: "rejected-no-endpoints",
    Reason.DEADLINE_PASSED: "rejected-ttl-expired",
    Reason.SHUTTING_DOWN: "rejected-shutting-down",
}


class PickerExchange(Exchange):
    """One request, as a gateway of others asks about it.

    `told` collects what the gateway says of the answer, for the core; after `end` it is complete.
    """

    def __init__(
        self,
        ticket: int,
        directory: Directory,
        settings: ExchangeSettings,
        sender: Sender,
        now: Callable[[], float],
        held_bodies: HeldBodies,
    ) -> None:
        super().__init__(ticket, directory, settings, sender)
        self._now = now
        self._held_bodies = held_bodies
        self._held_bytes = 0
        self._streams = False
        self._response_mode = ProcessingMode.NONE
        self._body = bytearray()
        self._read_all = False
        self._trailers = False
        self._subset: frozenset[str] | None = None
        self._account: AnswerAccount | None = None

    def take_told(self) -> Iterable[Event]:
        """Take what the gateway has said of the answer since the last call."""
        if self._account is None or not self._account.told:
            return ()
        told, self._account.told = self._account.told, []
        return told

    def end(self) -> None:
        """Take the end of the gateway's stream."""
        if self._account is not None:
            self._account.on_stream_end()

    def on_written(self) -> None:
        """The gateway has taken an answer: after the pick the body is held no longer."""
        if self.phase is Phase.ANSWERED:
            self._forget_body()

    def close(self) -> None:
        """End what the request holds."""
        self._forget_body()
        super().close()

    def receive(self, data: bytes) -> Answer | Question:
        """Take one message; raise `ProtocolError` if it makes no sense here."""
        message = _parse(data)
        kind = message.WhichOneof("request")
        try:
            if kind == "request_headers":
                return self._on_request_headers(message, len(data))
            if kind == "request_body":
                return self._on_request_body(message.request_body)
            if kind == "request_trailers":
                return self._on_request_trailers()
        except InputError as error:
            return self._refuse(answer_for_input(error))
        if kind is None or self.phase is not Phase.ANSWERED:
            raise ProtocolError(f"{kind or 'an empty message'} in phase {self.phase}")
        return self._on_response(kind, message)

    def receive_while_held(self, data: bytes) -> None:
        """Take a message beside the core's word: a body that has ended may end once more."""
        kind = _parse(data).WhichOneof("request")
        if not self._streams or kind not in ("request_body", "request_trailers"):
            super().receive_while_held(data)

    # The request

    def _on_request_headers(self, message: Any, message_bytes: int) -> Answer:
        try:
            self._subset = read_subset(message)
        except HintError as error:
            raise ProtocolError(str(error)) from error
        answer = self._on_headers(message, message_bytes)
        return () if self._streams and self.phase is Phase.BODY else answer

    def _take_modes(self, config: Any) -> None:
        """Take how bodies come: a gateway that does not say streams, as the protocol demands."""
        self._response_mode = config.response_body_mode
        if config.request_body_mode == ProcessingMode.BUFFERED:
            return
        streamed = (ProcessingMode.NONE, ProcessingMode.FULL_DUPLEX_STREAMED)
        if config.request_body_mode not in streamed:
            raise ProtocolError("request_body_mode must be FULL_DUPLEX_STREAMED or BUFFERED")
        self._streams = True

    def _on_request_body(self, part: Any) -> Answer | Question:
        if not self._streams:
            return self._on_body(part.body)
        if self._read_all:
            return ()
        if self.phase is not Phase.BODY:
            raise ProtocolError(f"a body in phase {self.phase}")
        if len(self._body) + len(part.body) > self._settings.body_limit_bytes:
            raise self._too_large()
        self._held_bodies.hold(len(part.body))
        self._held_bytes += len(part.body)
        self._body += part.body
        return self._ask_with_body() if part.end_of_stream else ()

    def _on_request_trailers(self) -> Answer | Question:
        if not self._streams and self.phase is Phase.ANSWERED:
            return CONTINUE["request_trailers"]
        if self._read_all:
            return ()
        if not self._streams or self.phase is not Phase.BODY:
            raise ProtocolError(f"trailers in phase {self.phase}")
        self._trailers = True
        return self._ask_with_body()

    def _ask_with_body(self) -> Question:
        self._read_all = True
        question = self._on_body(bytes(self._body))
        if self._new_body is not None:
            self._body.clear()  # it may be held for long, and once is enough
        return question

    def _forget_body(self) -> None:
        self._held_bodies.let_go(self._held_bytes)
        self._held_bytes = 0
        self._body.clear()

    def _on_body(self, body: bytes) -> Question:
        question = super()._on_body(body)
        if self._subset is None:
            return question
        return Question(replace(question.arrival, subset=self._subset))

    # The core's word

    def answer(self, word: Verdict | Enqueue, now: float) -> Answer:
        """Put the core's word in the gateway's terms; one that streams waits unasked."""
        if isinstance(word, Enqueue) and self._streams:
            self.phase = Phase.HELD
            return ()
        return super().answer(word, now)

    def _dispatch(self, endpoints: Iterable[str]) -> Answer:
        fallbacks = self._sender.fallbacks
        named = tuple(endpoints)[: None if fallbacks is None else 1 + fallbacks]
        if named:
            self._account = AnswerAccount(
                self._ticket,
                named,
                self._now,
                sees_body=self._response_mode != ProcessingMode.NONE,
            )
        new_body = self._new_body
        new_length = None if new_body is None else len(new_body)
        if not self._streams:
            pick = pick_answer("request_body", named, new_length=new_length)
            if new_body is not None:
                pick.request_body.response.body_mutation.body = new_body
            return bytes(pick.SerializeToString())
        pick = pick_answer("request_headers", named, new_length=new_length)
        body = bytes(self._body) if new_body is None else new_body
        self._body.clear()
        answers = [
            bytes(pick.SerializeToString()),
            *body_answers("request_body", body, end_of_stream=not self._trailers),
        ]
        if self._trailers:
            answers.append(CONTINUE["request_trailers"])
        return tuple(answers)

    def _refuse(self, answer: ErrorAnswer) -> Answer:
        self._forget_body()
        dropped = _DROPPED_REASONS.get(answer.reason)
        if dropped is not None:
            headers = (*answer.headers, (DROPPED_REASON_HEADER, dropped))
            answer = replace(answer, headers=headers)
        return super()._refuse(answer)

    # The response

    def _on_response(self, kind: str, message: Any) -> Answer:
        account = self._account
        if kind == "response_body":
            part = message.response_body
            if account is not None:
                account.on_body(len(part.body), end_of_stream=part.end_of_stream)
            if self._response_mode == ProcessingMode.FULL_DUPLEX_STREAMED:
                return tuple(
                    body_answers("response_body", part.body, end_of_stream=part.end_of_stream)
                )
        elif kind == "response_headers" and account is not None:
            account.on_headers(message)
        elif kind == "response_trailers" and account is not None:
            account.on_trailers()
        return CONTINUE[kind]


def _parse(data: bytes) -> Any:
    try:
        return ProcessingRequest.FromString(data)
    except DecodeError as error:
        raise ProtocolError("a message is not a ProcessingRequest") from error
