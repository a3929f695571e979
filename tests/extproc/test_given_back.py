"""A request that a peer has not served comes in again, and finds the request that it is."""

from typing import Any

import pytest

from heliostat_extproc.conversation import Outcome, ProtocolError, Sender
from heliostat_extproc.driver import FallOpen
from heliostat_extproc.given_back import GivenBack, ReturnExchange
from heliostat_extproc.upb import ProcessingRequest, ProcessingResponse
from heliostat_routing.commands import Dispatch, Forward
from heliostat_routing.explanation import Explanation

WHY = Explanation(policy="p", rule="r", winner=None, eligible=1)
FORWARDED = {
    "x-heliostat-ticket": "7",
    "x-heliostat-pool": "pool",
    "x-heliostat-origin": "gw-0",
    "x-heliostat-hold": "0.25",
    "x-heliostat-residency": "eu,us",
}


def message(said: dict[str, str]) -> bytes:
    request = ProcessingRequest()
    for key, value in said.items():
        request.request_headers.headers.headers.add(key=key, raw_value=value.encode())
    request.request_headers.SetInParent()
    return bytes(request.SerializeToString())


def returned() -> ReturnExchange:
    machine = ReturnExchange(Sender("gw-0"))
    assert machine.receive(message(FORWARDED)) == GivenBack(7)
    return machine


def common(answer: bytes) -> Any:
    return ProcessingResponse.FromString(answer).request_headers.response


def test_it_is_dispatched_from_its_headers() -> None:
    """The answer to the headers steers it, and takes off what was meant for the peer."""
    answer = returned().answer(Dispatch(7, ("10.0.0.1:8000",), WHY), 0.0)
    mutation = common(answer).header_mutation
    said = {o.header.key: o.header.raw_value for o in mutation.set_headers}
    assert said["x-heliostat-cluster"] == b"pool:pool"
    assert said["x-gateway-destination-endpoint"] == b"10.0.0.1:8000"
    assert set(mutation.remove_headers) == FORWARDED.keys() - {"x-heliostat-ticket"}


def test_it_is_forwarded_again_on_the_same_residency() -> None:
    """Where it may be served does not change on the way."""
    answer = returned().answer(Forward(7, "asia", 1.0, WHY), 0.0)
    options = common(answer).header_mutation.set_headers
    said = {o.header.key: o.header.raw_value for o in options}
    assert said["x-heliostat-cluster"] == b"peer:asia"
    assert said["x-heliostat-residency"] == b"eu,us"
    assert said["x-heliostat-hold"] == b"1.000"


def test_after_a_restart_envoy_balances_it_in_its_pool() -> None:
    """Its ticket is of a former router: the pool in its headers is enough."""
    machine = returned()
    answer = machine.answer(FallOpen(7), 0.0)
    said = {o.header.key: o.header.raw_value for o in common(answer).header_mutation.set_headers}
    assert said["x-heliostat-cluster"] == b"pool:pool"
    assert "x-gateway-destination-endpoint" in common(answer).header_mutation.remove_headers
    assert machine.outcome is Outcome.FELL_OPEN


@pytest.mark.parametrize("ticket", ["", "-1", "x", "9" * 5000])
def test_without_a_ticket_it_is_refused(ticket: str) -> None:
    """What is no request of ours is told so, with a reason."""
    machine = ReturnExchange(Sender())
    answer = machine.receive(message({"x-heliostat-pool": "pool", "x-heliostat-ticket": ticket}))
    assert isinstance(answer, bytes)
    immediate = ProcessingResponse.FromString(answer).immediate_response
    assert immediate.status.code == 503
    assert machine.finished


def test_a_second_message_before_the_word_is_an_error() -> None:
    """Envoy waits for the answer to the headers."""
    with pytest.raises(ProtocolError):
        returned().receive(message(FORWARDED))
