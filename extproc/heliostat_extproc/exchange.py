"""One request's conversation with Envoy, as a state machine without I/O.

Messages go in, answers come out; the servicer moves the bytes and asks the core. BUFFERED mode:
Envoy sends the request's headers, then its whole body, and holds the request until the body is
answered.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol
from urllib.parse import unquote

from google.protobuf.message import DecodeError

from heliostat_extproc.discovery.catalog import Resolution, ServedModel
from heliostat_extproc.driver import FallOpen, ShutDown, Verdict
from heliostat_extproc.engine_key import EngineKey
from heliostat_extproc.errors import (
    ErrorAnswer,
    InputError,
    Reason,
    answer_for_core,
    answer_for_input,
    error_answer,
)
from heliostat_extproc.ext_proc_wire import (
    CONTINUE,
    dispatch_response,
    error_response,
    hold_response,
    immediate_response,
)
from heliostat_extproc.paths import HEALTH_PATHS, INFERENCE_PATHS, MODELS_PATH
from heliostat_extproc.request_body import parse_request_body, rename_model
from heliostat_extproc.upb import ProcessingMode, ProcessingRequest
from heliostat_routing.commands import Dispatch, Enqueue
from heliostat_routing.events import RequestArrived

HOLD_MARGIN_SECONDS = 2.0
"""Envoy waits this much longer than the queue's deadline, so that the router's word comes first."""

_WHOLE_BODY_MODES = (
    ProcessingMode.NONE,
    ProcessingMode.BUFFERED,
)


class ProtocolError(Exception):
    """Envoy sent what its configuration for Heliostat rules out; the stream cannot go on."""


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
    FELL_OPEN = "fell-open"
    ANSWERED_HERE = "answered-here"
    CLIENT_LEFT = "client-left"
    """It ended before it was answered."""


class Directory(Protocol):
    """What can be asked for now; a `Catalog` that may change between requests.

    Both raise NotSyncedError while nothing is known yet.
    """

    def resolve(self, name: str) -> Resolution | None:
        """Find who serves the model of this name."""
        ...

    def models(self) -> Sequence[ServedModel]:
        """List every name that resolves."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """The request is read: the core must say where it goes."""

    arrival: RequestArrived


class Exchange:
    """The conversation about one request.

    `receive` takes each message and returns the answer to send, or a `Question` for the core, whose
    word goes to `answer`. `finished`: an error or a direct answer has ended the request.
    """

    def __init__(
        self,
        ticket: int,
        directory: Directory,
        body_limit_bytes: int,
        engine_key: EngineKey | None = None,
    ) -> None:
        self._ticket = ticket
        self._directory = directory
        self._body_limit_bytes = body_limit_bytes
        self._engine_key = engine_key
        self._new_body: bytes | None = None
        self.phase = Phase.HEADERS
        self.finished = False
        self.outcome: Outcome | Reason = Outcome.CLIENT_LEFT
        self.pool = ""

    def receive(self, data: bytes) -> bytes | Question:
        """Take one message; raise `ProtocolError` if it makes no sense here."""
        try:
            message = ProcessingRequest.FromString(data)
        except DecodeError as error:
            raise ProtocolError("a message is not a ProcessingRequest") from error
        kind = message.WhichOneof("request")
        try:
            if kind == "request_headers":
                return self._on_headers(message)
            if kind == "request_body":
                return self._on_body(message.request_body.body)
        except InputError as error:
            return self._refuse(answer_for_input(error))
        if kind is None or self.phase in (Phase.ASKED, Phase.HELD):
            raise ProtocolError(f"{kind or 'an empty message'} in phase {self.phase}")
        return CONTINUE[kind]

    def answer(self, word: Verdict | Enqueue, now: float) -> bytes:
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
        if isinstance(word, FallOpen):
            self.outcome = Outcome.FELL_OPEN
            return self._dispatch(())
        if isinstance(word, ShutDown):
            return self._refuse(error_answer(Reason.SHUTTING_DOWN))
        return self._refuse(answer_for_core(word.reason, word.retry_after_seconds))

    def _on_headers(self, message: Any) -> bytes:
        if self.phase is not Phase.HEADERS:
            raise ProtocolError(f"headers in phase {self.phase}")
        if message.protocol_config.request_body_mode not in _WHOLE_BODY_MODES:
            raise ProtocolError("request_body_mode must be BUFFERED")
        method, path, length = _read_headers(message.request_headers.headers.headers)
        if path in INFERENCE_PATHS:
            _check_method(method, ("POST",), path)
            if length > self._body_limit_bytes:
                raise self._too_large()
            if message.request_headers.end_of_stream:
                raise InputError(Reason.MALFORMED_REQUEST, "the body is empty")
            self.phase = Phase.BODY
            return CONTINUE["request_headers"]
        return self._serve(method, path)

    def _serve(self, method: str, path: str) -> bytes:
        """Answer what needs no engine."""
        if path in HEALTH_PATHS:
            body = b'{"status":"ok"}'
        elif path == MODELS_PATH:
            cards = [_model_card(model) for model in self._directory.models()]
            body = json.dumps({"object": "list", "data": cards}).encode()
        elif path.startswith(MODELS_PATH + "/"):
            name = unquote(path.removeprefix(MODELS_PATH + "/"))
            body = json.dumps(_model_card(self._find_model(name))).encode()
        else:
            raise InputError(Reason.UNKNOWN_PATH, f"`{path[:200]}`")
        _check_method(method, ("GET", "HEAD"), path)
        self.phase = Phase.ANSWERED
        self.finished = True
        self.outcome = Outcome.ANSWERED_HERE
        return immediate_response(200, body)

    def _find_model(self, name: str) -> ServedModel:
        for model in self._directory.models():
            if model.name == name:
                return model
        raise InputError(Reason.UNKNOWN_MODEL, f"`{name[:200]}`")

    def _on_body(self, body: bytes) -> Question:
        if self.phase is not Phase.BODY:
            raise ProtocolError(f"a body in phase {self.phase}")
        if len(body) > self._body_limit_bytes:
            raise self._too_large()
        request = parse_request_body(body)
        resolved = self._directory.resolve(request.model)
        if resolved is None:
            raise InputError(Reason.UNKNOWN_MODEL, f"`{request.model[:200]}`")
        if resolved.served_name != request.model:
            self._new_body = rename_model(body, request.model, resolved.served_name)
        digest = request.digest(resolved.model, resolved.adapter)
        self.phase = Phase.ASKED
        self.pool = resolved.pool
        return Question(
            RequestArrived(
                ticket=self._ticket,
                pool=resolved.pool,
                block_keys=digest.block_keys,
                prompt_bytes=digest.prompt_bytes,
                max_output_tokens=request.max_output_tokens,
                adapter=resolved.adapter,
                affinity_key=digest.affinity_key,
            )
        )

    def _dispatch(self, endpoints: Sequence[str]) -> bytes:
        authorization = None if self._engine_key is None else self._engine_key.authorization
        return dispatch_response(self.pool, self._ticket, endpoints, self._new_body, authorization)

    def _refuse(self, answer: ErrorAnswer) -> bytes:
        self.phase = Phase.ANSWERED
        self.finished = True
        self.outcome = answer.reason
        return error_response(answer)

    def _too_large(self) -> InputError:
        return InputError(Reason.REQUEST_TOO_LARGE, f"the limit is {self._body_limit_bytes} bytes")


def _read_headers(headers: Any) -> tuple[str, str, int]:
    """Take method, path without query, and the declared length in bytes (0 where there is none)."""
    method = path = ""
    length = 0
    for header in headers:
        key = header.key
        if key == ":method":
            method = _text(header)
        elif key == ":path":
            path = _text(header).partition("?")[0]
        elif key == "content-length":
            text = _text(header)
            length = int(text) if text.isdecimal() and len(text) < 19 else 0
    return method, path, length


def _text(header: Any) -> str:
    raw: bytes = header.raw_value
    return raw.decode("utf-8", "replace") if raw else str(header.value)


def _check_method(method: str, allowed: tuple[str, ...], path: str) -> None:
    if method not in allowed:
        raise InputError(Reason.METHOD_NOT_ALLOWED, f"`{path[:200]}` takes {allowed[0]}")


def _model_card(model: ServedModel) -> dict[str, str | int | None]:
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": "heliostat",
        "root": model.root,
        "parent": model.parent,
    }
