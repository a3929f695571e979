"""One request's conversation with Envoy, as a state machine without I/O.

Messages go in, answers come out; the servicer moves the bytes and asks the core. BUFFERED mode:
Envoy sends the request's headers, then its whole body, and holds the request until the body is
answered. What clients ask for comes in here, and what peers forward.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import unquote

from google.protobuf.message import DecodeError

from heliostat_extproc.apis import APIS, HEALTH_PATHS, MODELS_PATH, Api
from heliostat_extproc.conversation import (
    Answer,
    Conversation,
    Outcome,
    Phase,
    ProtocolError,
    Sender,
)
from heliostat_extproc.discovery.catalog import Resolution, ServedModel
from heliostat_extproc.envoy import wire
from heliostat_extproc.errors import InputError, Reason, answer_for_input
from heliostat_extproc.ext_proc_wire import CONTINUE, immediate_response
from heliostat_extproc.federation.region import Region
from heliostat_extproc.observing.trace_context import TRACEPARENT
from heliostat_extproc.request_body import read_request
from heliostat_extproc.request_head import (
    RegionOf,
    Terms,
    check_encoding,
    check_size,
    format_residencies,
    read_client_terms,
    read_head,
    read_length,
    read_path,
    read_peer_terms,
    read_request_id,
)
from heliostat_extproc.tenancy.admission import Admission
from heliostat_extproc.upb import ProcessingMode, ProcessingRequest
from heliostat_extproc.wishes import Wishes, read_wishes
from heliostat_routing.events import RequestArrived
from heliostat_routing.residency import allows

_WHOLE_BODY_MODES = (
    ProcessingMode.NONE,
    ProcessingMode.BUFFERED,
)


PriorityOf = Callable[[str, str], int]
"""Says which priority an objective of this name has in a pool; 0 where there is none."""


class Directory(Protocol):
    """What can be asked for now; it may change between requests.

    All raise NotSyncedError while nothing is known yet.
    """

    def resolve(self, name: str) -> Resolution | None:
        """Find who serves the model of this name."""
        ...

    def models(self) -> Sequence[ServedModel]:
        """List every name that resolves."""
        ...

    def residency(self, pool: str) -> frozenset[str] | None:
        """Name the regions and groups where a pool's requests may be served; None: anywhere."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """The request is read: the core must say where it goes."""

    arrival: RequestArrived


@dataclass(frozen=True, slots=True)
class ExchangeSettings:
    """What every exchange of a router goes by."""

    body_limit_bytes: int
    region: Region | None = None
    """Where this router is; None: it has no peers, and residency rules cannot be kept."""
    region_of: RegionOf = lambda _identity: None
    priority_of: PriorityOf = lambda _pool, _objective: 0


class Exchange(Conversation):
    """The conversation about one request of a client, or of a peer.

    `receive` takes each message and returns the answer to send, or a `Question` for the core, whose
    word goes to `answer`.
    """

    def __init__(
        self,
        ticket: int,
        directory: Directory,
        settings: ExchangeSettings,
        sender: Sender,
        *,
        from_peer: bool = False,
        admission: Admission | None = None,
    ) -> None:
        super().__init__(ticket, sender)
        self._admission = admission
        self._directory = directory
        self._settings = settings
        self._from_peer = from_peer
        self._terms = Terms()
        self._wishes = Wishes()
        self._api: Api | None = None
        self._content_type = ""
        self.turned_away: str | None = None
        """The peer's router whose request has come and has not got as far as to the core."""
        self._is_admitted = False

    def close(self) -> None:
        """End what the request has of its tenant's limits."""
        if self._admission is not None and self._is_admitted:
            self._admission.leave(self.tenant)
            self._is_admitted = False

    def receive(self, data: bytes) -> Answer | Question:
        """Take one message; raise `ProtocolError` if it makes no sense here."""
        try:
            message = ProcessingRequest.FromString(data)
        except DecodeError as error:
            raise ProtocolError("a message is not a ProcessingRequest") from error
        kind = message.WhichOneof("request")
        try:
            if kind == "request_headers":
                return self._on_headers(message, len(data))
            if kind == "request_body":
                return self._on_body(message.request_body.body)
        except InputError as error:
            return self._refuse(answer_for_input(error))
        if kind is None or self.phase in (Phase.ASKED, Phase.HELD):
            raise ProtocolError(f"{kind or 'an empty message'} in phase {self.phase}")
        return CONTINUE[kind]

    def _on_headers(self, message: Any, message_bytes: int) -> Answer:
        if self.phase is not Phase.HEADERS:
            raise ProtocolError(f"headers in phase {self.phase}")
        self._take_modes(message.protocol_config)
        headers = message.request_headers.headers
        if not self._from_peer:
            check_size(headers, message_bytes)
        head = read_head(headers.headers)
        self.request_id = read_request_id(head)
        self.traceparent = head.get(TRACEPARENT, "")
        self.tenant = self._read_tenant(head)
        method, path = head.get(":method", ""), read_path(head)
        self._api = APIS.get(path)
        if self._api is not None:
            self._content_type = head.get("content-type", "")
            self._terms = self._read_terms(head)
            self._wishes = read_wishes(head)
            _check_method(method, ("POST",), path)
            check_encoding(head)
            if read_length(head) > self._settings.body_limit_bytes:
                raise self._too_large()
            if message.request_headers.end_of_stream:
                raise InputError(Reason.MALFORMED_REQUEST, "the body is empty")
            self.phase = Phase.BODY
            return CONTINUE["request_headers"]
        return self._serve(method, path)

    def _take_modes(self, config: Any) -> None:
        """Take how bodies come; raise ProtocolError where it is not whole."""
        if config.request_body_mode not in _WHOLE_BODY_MODES:
            raise ProtocolError("request_body_mode must be BUFFERED")

    def _read_terms(self, head: dict[str, str]) -> Terms:
        """Read on which terms the request comes; raise InputError where it may not be served."""
        if self._from_peer:
            terms = read_peer_terms(head, self._settings.region_of)
            self.turned_away = terms.origin
        else:
            terms = self._admit(read_client_terms(head))
        for rule in terms.residencies:
            self._stay_within(rule)
        return terms

    def _read_tenant(self, head: dict[str, str]) -> str:
        """Take the tenant as Envoy names it; raise InputError where it is none."""
        if self._admission is None:
            return ""
        tenant = head.get(wire.TENANT_HEADER, "")
        self._admission.check(tenant)
        return tenant

    def _admit(self, terms: Terms) -> Terms:
        """Let a tenant's request in; its tenant's residency binds it, which it can only narrow."""
        if self._admission is None:
            return terms
        allowed = self._admission.enter(self.tenant)
        self._is_admitted = True
        if allowed is None:
            return terms
        wanted = next(iter(terms.residencies), allowed)
        if not wanted <= allowed:
            raise InputError(Reason.RESIDENCY, f"your tenant's are {', '.join(sorted(allowed))}")
        return replace(terms, residencies=(wanted,))

    def _stay_within(self, residency: frozenset[str] | None) -> None:
        """Raise InputError where the request may not be served in this region."""
        region = self._settings.region
        name, groups = ("", frozenset[str]()) if region is None else (region.name, region.groups)
        if not allows(residency, name, groups):
            raise InputError(Reason.RESIDENCY, ", ".join(sorted(residency or ())))

    def _serve(self, method: str, path: str) -> bytes:
        """Answer what needs no engine; a peer has nothing to ask of that."""
        if self._from_peer:
            raise InputError(Reason.UNKNOWN_PATH, f"`{path[:200]}`")
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
        if self.phase is not Phase.BODY or self._api is None:
            raise ProtocolError(f"a body in phase {self.phase}")
        if len(body) > self._settings.body_limit_bytes:
            raise self._too_large()
        request = read_request(body, self._api, self._content_type)
        resolved = self._directory.resolve(request.model)
        if resolved is None:
            raise InputError(Reason.UNKNOWN_MODEL, f"`{request.model[:200]}`")
        own = self._directory.residency(resolved.pool)
        self._stay_within(own)
        rules = self._terms.residencies if own is None else (*self._terms.residencies, own)
        self._residencies = format_residencies(rules)
        if resolved.served_name != request.model:
            self._new_body = request.renamed(resolved.served_name)
        digest = request.digest(resolved.model, resolved.adapter)
        self.phase = Phase.ASKED
        self.turned_away = None
        self.pool, self.model = resolved.pool, resolved.served_name
        wish = self._wishes.objective
        return Question(
            RequestArrived(
                ticket=self._ticket,
                pool=resolved.pool,
                block_keys=digest.block_keys,
                prompt_bytes=digest.prompt_bytes,
                max_output_tokens=request.max_output_tokens,
                adapter=resolved.adapter,
                affinity_key=digest.affinity_key,
                origin=self._terms.origin,
                hold_seconds=self._terms.hold_seconds,
                residency=next(iter(self._terms.residencies), None),
                may_leave=self._sender.forwards,
                priority=0 if wish is None else self._settings.priority_of(resolved.pool, wish),
                ttft_objective_seconds=self._wishes.ttft_objective_seconds,
            )
        )

    def _too_large(self) -> InputError:
        return InputError(
            Reason.REQUEST_TOO_LARGE, f"the limit is {self._settings.body_limit_bytes} bytes"
        )


def _check_method(method: str, allowed: tuple[str, ...], path: str) -> None:
    if method not in allowed:
        raise InputError(
            Reason.METHOD_NOT_ALLOWED,
            f"`{path[:200]}` takes {allowed[0]}",
            headers=(("allow", ", ".join(allowed)),),
        )


def _model_card(model: ServedModel) -> dict[str, str | int | None]:
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": "heliostat",
        "root": model.root,
        "parent": model.parent,
    }
