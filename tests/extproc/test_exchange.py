"""The conversation with Envoy: every message sequence gets a fitting answer or a protocol error."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat_extproc.conversation import Outcome, Phase, ProtocolError, Sender
from heliostat_extproc.discovery.catalog import Resolution, ServedModel
from heliostat_extproc.driver import FallOpen, ShutDown, Verdict
from heliostat_extproc.errors import Reason
from heliostat_extproc.exchange import Exchange, ExchangeSettings, Question
from heliostat_extproc.federation.region import Region
from heliostat_extproc.upb import ProcessingMode, ProcessingRequest, ProcessingResponse
from heliostat_routing.commands import (
    Dispatch,
    Enqueue,
    Evict,
    EvictReason,
    Forward,
    Reject,
    RejectReason,
)
from heliostat_routing.explanation import Explanation

WHY = Explanation(policy="p", rule="r", winner=None, eligible=1)
LIMIT_BYTES = 1000
DISPATCH = Dispatch(7, ("10.0.0.1:8000", "10.0.0.2:8000"), WHY)


@dataclass(frozen=True)
class FakeDirectory:
    """Serves `m`, its alias `alias`, and the adapter `lora`."""

    rule: frozenset[str] | None = None

    def residency(self, pool: str) -> frozenset[str] | None:
        assert pool == "pool"
        return self.rule

    def resolve(self, name: str) -> Resolution | None:
        known = {"m": None, "alias": None, "lora": "lora"}
        return Resolution("pool", "m", known[name]) if name in known else None

    def models(self) -> tuple[ServedModel, ...]:
        return (ServedModel("m", "m", None, "pool"), ServedModel("lora", "lora", "m", "pool"))


def headers(
    path: str = "/v1/chat/completions",
    method: str = "POST",
    *,
    end: bool = False,
    mode: int = ProcessingMode.BUFFERED,
    **more: str,
) -> bytes:
    message = ProcessingRequest()
    message.request_headers.end_of_stream = end
    message.protocol_config.request_body_mode = mode
    for key, value in {":path": path, ":method": method, **more}.items():
        message.request_headers.headers.headers.add(key=key, raw_value=value.encode())
    return bytes(message.SerializeToString())


def body(content: bytes) -> bytes:
    message = ProcessingRequest()
    message.request_body.body = content
    message.request_body.end_of_stream = True
    return bytes(message.SerializeToString())


def other(kind: str) -> bytes:
    message = ProcessingRequest()
    getattr(message, kind).SetInParent()
    return bytes(message.SerializeToString())


HERE = Region("us-east", "gw-0", frozenset({"us"}))
US, EU = "spiffe://example/region/us-west", "spiffe://example/region/eu"


def exchange(
    *, from_peer: bool = False, rule: frozenset[str] | None = None, here: Region | None = HERE
) -> Exchange:
    settings = ExchangeSettings(LIMIT_BYTES, here, {US: "us-west", EU: "eu"}.get)
    return Exchange(7, FakeDirectory(rule), settings, Sender("gw-0"), from_peer=from_peer)


def peer_headers(**more: str) -> bytes:
    said = {
        "x-forwarded-client-cert": f"Hash=1;URI={EU}",
        "x-heliostat-origin": "gw-3",
        "x-heliostat-hold": "0.25",
    }
    return headers(**(said | more))


def decode(answer: bytes | Question) -> Any:
    assert isinstance(answer, bytes)
    return ProcessingResponse.FromString(answer)


def error_code(answer: bytes | Question) -> str:
    return str(json.loads(decode(answer).immediate_response.body)["error"]["code"])


def asked(content: bytes = b'{"model":"m","messages":["hello"]}') -> tuple[Exchange, Question]:
    machine = exchange()
    assert decode(machine.receive(headers())).WhichOneof("response") == "request_headers"
    question = machine.receive(body(content))
    assert isinstance(question, Question)
    return machine, question


def test_a_dispatch_names_cluster_endpoints_and_ticket() -> None:
    """Envoy gets the route's header, the endpoints in order, and what joins its log to us."""
    machine, question = asked()
    assert (question.arrival.pool, question.arrival.ticket) == ("pool", 7)
    response = decode(machine.answer(DISPATCH, 0.0))
    common = response.request_body.response
    set_headers = {o.header.key: o.header.raw_value for o in common.header_mutation.set_headers}
    assert common.clear_route_cache
    assert set_headers == {
        "x-heliostat-cluster": b"pool:pool",
        "x-heliostat-ticket": b"7",
        "x-gateway-destination-endpoint": b"10.0.0.1:8000,10.0.0.2:8000",
    }
    lb = response.dynamic_metadata["envoy.lb"]
    assert lb["x-gateway-destination-endpoint"] == "10.0.0.1:8000,10.0.0.2:8000"
    assert response.dynamic_metadata["heliostat"]["ticket"] == "7"
    assert not common.HasField("body_mutation")
    assert machine.outcome is Outcome.DISPATCHED
    assert not machine.finished


def test_falling_open_leaves_the_choice_to_envoy() -> None:
    """Without the core the pool is still known: its own balancing takes over."""
    machine, _ = asked()
    response = decode(machine.answer(FallOpen(7), 0.0))
    assert "envoy.lb" not in response.dynamic_metadata
    assert machine.outcome is Outcome.FELL_OPEN


def test_a_held_request_asks_for_time_until_after_its_deadline() -> None:
    """One wish for more time, then the last word."""
    machine, _ = asked()
    wish = decode(machine.answer(Enqueue(7, 110.0, WHY), 100.0))
    assert wish.WhichOneof("response") is None
    assert 10 < wish.override_message_timeout.ToSeconds() < 15
    assert machine.phase is Phase.HELD
    machine.answer(DISPATCH, 105.0)
    assert machine.phase is Phase.ANSWERED


@pytest.mark.parametrize(
    ("word", "code"),
    [
        (Reject(7, RejectReason.QUEUE_FULL, 2.0), "queue-full"),
        (Reject(7, RejectReason.NO_ENDPOINTS, 2.0), "no-endpoints"),
        (Evict(7, EvictReason.DEADLINE_PASSED, 2.0), "deadline-passed"),
        (ShutDown(7), "shutting-down"),
    ],
)
def test_a_refusal_ends_the_request_with_its_code(word: Verdict, code: str) -> None:
    """Each refusal is an immediate response with its own code."""
    machine, _ = asked()
    assert error_code(machine.answer(word, 0.0)) == code
    assert machine.finished
    assert machine.outcome == Reason(code)


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([headers(), body(b"{")], "malformed-request"),
        ([headers(end=True)], "malformed-request"),
        ([headers(), body(b'{"model":"nope"}')], "unknown-model"),
        ([headers(), body(b"x" * (LIMIT_BYTES + 1))], "request-too-large"),
        ([headers(**{"content-length": str(LIMIT_BYTES + 1)})], "request-too-large"),
        ([headers("/v1/nothing")], "unknown-path"),
        ([headers(method="GET")], "method-not-allowed"),
        ([headers("/v1/models", "DELETE")], "method-not-allowed"),
        ([headers("/v1/models/nope", "GET", end=True)], "unknown-model"),
    ],
)
def test_a_clients_mistake_ends_the_request_with_its_code(messages: list[bytes], code: str) -> None:
    """Each mistake is an immediate response with its own code."""
    machine = exchange()
    for message in messages:
        answer = machine.receive(message)
    assert error_code(answer) == code
    assert machine.finished


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models?x=1", "/health", "/healthz"])
def test_models_and_health_are_answered_here(path: str) -> None:
    """What needs no engine is answered by the router."""
    machine = exchange()
    response = decode(machine.receive(headers(path, "GET", end=True))).immediate_response
    assert response.status.code == 200
    if "models" in path:
        assert [card["id"] for card in json.loads(response.body)["data"]] == ["m", "lora"]
    assert machine.outcome is Outcome.ANSWERED_HERE


def test_an_alias_is_renamed_and_an_adapter_keeps_its_name() -> None:
    """The engine is asked for a name it knows; nothing else in the body changes."""
    machine, question = asked(b'{"model": "alias", "n": 1.50}')
    response = decode(machine.answer(DISPATCH, 0.0)).request_body.response
    assert response.body_mutation.body == b'{"model": "m", "n": 1.50}'
    lengths = {o.header.key: o.header.raw_value for o in response.header_mutation.set_headers}
    assert lengths["content-length"] == b"25"
    assert question.arrival.adapter is None
    machine, question = asked(b'{"model":"lora"}')
    assert question.arrival.adapter == "lora"
    assert not decode(machine.answer(DISPATCH, 0.0)).request_body.response.HasField("body_mutation")


@pytest.mark.parametrize(
    "messages",
    [
        [b"\xff\xff"],
        [b""],
        [body(b"{}")],
        [headers(), headers()],
        [headers(mode=ProcessingMode.STREAMED)],
        [headers(), body(b'{"model":"m"}'), body(b"{}")],
    ],
)
def test_what_envoy_must_not_send_is_a_protocol_error(messages: list[bytes]) -> None:
    """Messages out of turn are told from a client's mistakes."""
    machine = exchange()
    with pytest.raises(ProtocolError):  # noqa: PT012 - any of the messages may be the one
        for message in messages:
            machine.receive(message)


MESSAGES = st.sampled_from(
    [
        headers(),
        headers("/v1/models", "GET", end=True),
        headers("/x"),
        body(b'{"model":"m","prompt":"hi"}'),
        body(b'{"model":"nope"}'),
        body(b"junk"),
        *(other(k) for k in ("request_trailers", "response_headers", "response_body")),
    ]
)
WORDS = st.sampled_from(
    [DISPATCH, FallOpen(7), Enqueue(7, 9.0, WHY), Reject(7, RejectReason.QUEUE_FULL, 1.0)]
)


@given(st.lists(MESSAGES | st.binary(max_size=40) | WORDS, max_size=12))
def test_any_sequence_is_answered_in_kind_or_refused(steps: list[Any]) -> None:
    """Whatever comes in whatever order: a decodable answer of the same kind, or ProtocolError."""
    machine = exchange()
    questions = answers = 0
    for step in steps:
        try:
            answer = machine.receive(step) if isinstance(step, bytes) else machine.answer(step, 0.0)
        except ProtocolError:
            return
        if isinstance(answer, Question):
            questions += 1
            assert machine.phase is Phase.ASKED
            continue
        kind = decode(answer).WhichOneof("response")
        answers += kind == "request_body"
        if isinstance(step, bytes) and kind != "immediate_response":
            assert kind == ProcessingRequest.FromString(step).WhichOneof("request")
        if machine.finished:
            assert kind == "immediate_response"
            return
        assert answers <= questions <= 1


def test_a_forward_names_the_region_and_the_terms() -> None:
    """The request leaves for the peer's cluster with all that the peer must know of it."""
    machine = exchange(rule=frozenset({"us", "eu"}))
    machine.receive(headers(**{"x-data-residency": "us-east, eu"}))
    question = machine.receive(body(b'{"model":"alias"}'))
    assert isinstance(question, Question)
    assert question.arrival.residency == {"us-east", "eu"}
    response = decode(machine.answer(Forward(7, "eu", 0.25, WHY), 0.0))
    common = response.request_body.response
    assert {o.header.key: o.header.raw_value for o in common.header_mutation.set_headers} == {
        "content-length": b"13",
        "x-heliostat-cluster": b"peer:eu",
        "x-heliostat-ticket": b"7",
        "x-heliostat-pool": b"pool",
        "x-heliostat-origin": b"gw-0",
        "x-heliostat-hold": b"0.250",
        "x-heliostat-residency": b"eu,us-east;eu,us",
    }
    assert common.body_mutation.body == b'{"model":"m"}'
    assert "envoy.lb" not in response.dynamic_metadata
    assert machine.outcome is Outcome.FORWARDED


def test_a_peers_request_comes_on_its_terms() -> None:
    """Its origin is the region that Envoy has verified and the router that the peer names."""
    machine = exchange(from_peer=True)
    machine.receive(peer_headers(**{"x-heliostat-residency": "us,eu"}))
    question = machine.receive(body(b'{"model":"m"}'))
    assert isinstance(question, Question)
    assert (question.arrival.origin, question.arrival.hold_seconds) == ("eu/gw-3", 0.25)


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        (
            {"x-forwarded-client-cert": "URI=spiffe://example/region/no"},
            503,
            "not-a-peer",
        ),
        ({"x-forwarded-client-cert": f"URI={EU},URI={US}"}, 503, "not-a-peer"),
        ({"x-forwarded-client-cert": ""}, 503, "not-a-peer"),
        ({"x-heliostat-residency": "eu"}, 503, "residency"),
        ({"x-heliostat-residency": "us;eu"}, 503, "residency"),
        ({"x-heliostat-residency": ""}, 503, "malformed-request"),
        ({"x-heliostat-residency": "us;us;us"}, 503, "malformed-request"),
        ({"x-heliostat-hold": "-1"}, 503, "malformed-request"),
        ({"x-heliostat-hold": "nan"}, 503, "malformed-request"),
        ({"x-heliostat-hold": "1e9"}, 503, "malformed-request"),
        ({"x-heliostat-origin": "a b"}, 503, "malformed-request"),
        ({":path": "/v1/models", ":method": "GET"}, 503, "unknown-path"),
        ({":path": "/health", ":method": "GET"}, 503, "unknown-path"),
        ({":method": "GET"}, 503, "method-not-allowed"),
    ],
)
def test_a_peers_request_that_cannot_be_served_here_goes_back(
    more: dict[str, str], status: int, code: str
) -> None:
    """It is a 503, whatever a client would be told: its ingress has found nothing wrong with it."""
    answer = exchange(from_peer=True).receive(peer_headers(**more))
    assert error_code(answer) == code
    assert decode(answer).immediate_response.status.code == status


@pytest.mark.parametrize(
    "word", [Reject(7, RejectReason.QUEUE_FULL, 2.0), Evict(7, EvictReason.DEADLINE_PASSED, 1.0)]
)
def test_a_peers_request_that_finds_no_place_goes_back(word: Verdict) -> None:
    """The core's refusal reaches the ingress as a 503, which decides anew."""
    machine = exchange(from_peer=True)
    machine.receive(peer_headers())
    machine.receive(body(b'{"model":"m"}'))
    assert decode(machine.answer(word, 0.0)).immediate_response.status.code == 503


@pytest.mark.parametrize("residency", ["eu", "eu, asia"])
def test_a_client_may_not_be_served_where_it_does_not_want_to_be(residency: str) -> None:
    """A rule that excludes this region is answered before the body is read."""
    answer = exchange().receive(headers(**{"x-data-residency": residency}))
    assert error_code(answer) == "residency"
    assert decode(answer).immediate_response.status.code == 421


def test_a_router_without_a_region_serves_no_request_with_a_rule() -> None:
    """What cannot be kept is refused, not taken as kept."""
    answer = exchange(here=None).receive(headers(**{"x-data-residency": "us-east"}))
    assert error_code(answer) == "residency"


def test_a_pool_is_not_served_outside_its_residency() -> None:
    """A pool's own rule holds for every request, also where a peer has sent it."""
    for from_peer in (False, True):
        machine = exchange(from_peer=from_peer, rule=frozenset({"eu"}))
        machine.receive(peer_headers() if from_peer else headers())
        assert error_code(machine.receive(body(b'{"model":"m"}'))) == "residency"


def test_a_clients_word_about_peers_means_nothing() -> None:
    """Origin, hold and residency of a peer are read at the peers' entrance alone."""
    machine = exchange()
    machine.receive(peer_headers(**{"x-heliostat-residency": "eu"}))
    question = machine.receive(body(b'{"model":"m"}'))
    assert isinstance(question, Question)
    assert (question.arrival.origin, question.arrival.hold_seconds) == (None, None)
    assert question.arrival.residency is None


def test_a_clients_rule_is_one_rule() -> None:
    """Two rules at once, of which one could be kept and the other broken, are refused."""
    answer = exchange().receive(headers(**{"x-data-residency": "us,eu;us"}))
    assert error_code(answer) == "malformed-request"


def test_a_rule_that_is_repeated_is_read_as_one_list() -> None:
    """Two headers of one name mean what they mean in HTTP: their values with commas."""
    message = ProcessingRequest.FromString(headers(**{"x-data-residency": "us"}))
    message.request_headers.headers.headers.add(key="x-data-residency", raw_value=b"eu")
    machine = exchange()
    machine.receive(message.SerializeToString())
    question = machine.receive(body(b'{"model":"m"}'))
    assert isinstance(question, Question)
    assert question.arrival.residency == {"us", "eu"}


def test_the_longest_rules_of_client_and_pool_pass_between_regions() -> None:
    """What the ingress takes the peer takes too."""
    names = ["us", *(f"group-{number}" for number in range(63))]
    machine = exchange(rule=frozenset(names))
    machine.receive(headers(**{"x-data-residency": ",".join(names)}))
    machine.receive(body(b'{"model":"m"}'))
    response = decode(machine.answer(Forward(7, "us-west", 0.25, WHY), 0.0))
    options = response.request_body.response.header_mutation.set_headers
    (said,) = [o.header.raw_value for o in options if o.header.key == "x-heliostat-residency"]
    peer = exchange(from_peer=True)
    peer.receive(peer_headers(**{"x-heliostat-residency": said.decode()}))
    assert isinstance(peer.receive(body(b'{"model":"m"}')), Question)


def test_who_cannot_forward_is_not_told_to() -> None:
    """A foreign gateway that asks for an endpoint knows no regions."""
    settings = ExchangeSettings(LIMIT_BYTES, HERE)
    machine = Exchange(7, FakeDirectory(), settings, Sender("gw-0", forwards=False))
    machine.receive(headers())
    question = machine.receive(body(b'{"model":"m"}'))
    assert isinstance(question, Question)
    assert not question.arrival.may_leave


@pytest.mark.parametrize(
    ("more", "content", "turned_away"),
    [
        ({}, b'{"model":"m"}', None),
        ({}, b'{"model":"nope"}', "eu/gw-3"),
        ({"x-heliostat-residency": "eu"}, None, "eu/gw-3"),
        ({"x-forwarded-client-cert": ""}, None, None),
    ],
)
def test_a_peers_request_that_is_turned_away_is_counted_all_the_same(
    more: dict[str, str], content: bytes | None, turned_away: str | None
) -> None:
    """Its ingress waits for the count: it is on its way no more."""
    machine = exchange(from_peer=True)
    machine.receive(peer_headers(**more))
    if content is not None:
        machine.receive(body(content))
    assert machine.turned_away == turned_away
