"""What a gateway of others may send beside the core's word."""

import pytest

from heliostat_extproc.conversation import ProtocolError, Sender
from heliostat_extproc.endpoint_picker.answer_account import AnswerAccount
from heliostat_extproc.endpoint_picker.exchange import PickerExchange
from heliostat_extproc.endpoint_picker.held_bodies import HeldBodies
from heliostat_extproc.endpoint_picker.names import SERVED_KEY
from heliostat_extproc.envoy import wire
from heliostat_extproc.exchange import ExchangeSettings
from heliostat_extproc.upb import ProcessingMode, ProcessingRequest
from heliostat_routing.events import RequestMeasured

from .test_exchange import FakeDirectory


@pytest.mark.parametrize("data", [b"\xff\xff", b""])
def test_what_is_no_message_is_a_protocol_error_also_while_held(data: bytes) -> None:
    """It ends the stream with a status, as at any other time."""
    machine = PickerExchange(
        7, FakeDirectory(), ExchangeSettings(1000), Sender(), lambda: 0.0, HeldBodies(1000)
    )
    with pytest.raises(ProtocolError):
        machine.receive_while_held(data)


def test_bodies_that_wait_are_bounded_together_and_let_go() -> None:
    """One that finds no room is refused; the room of one that ends is there for the next."""
    held = HeldBodies(1500)
    one, two, three = (picker(held) for _ in range(3))
    for machine in (one, two, three):
        assert machine.receive(streamed_headers()) == ()
    assert one.receive(part(b"x" * 900)) == ()
    assert b"overloaded" in two.receive(part(b"x" * 900))
    assert held.held_bytes == 900
    one.close()
    assert three.receive(part(b"x" * 900)) == ()
    three.close()
    two.close()
    assert held.held_bytes == 0


def picker(held: HeldBodies) -> PickerExchange:
    """A request of a gateway that streams."""
    return PickerExchange(7, FakeDirectory(), ExchangeSettings(1000), Sender(), lambda: 0.0, held)


def streamed_headers() -> bytes:
    """The headers of such a request."""
    message = ProcessingRequest()
    message.protocol_config.request_body_mode = ProcessingMode.FULL_DUPLEX_STREAMED
    for name, value in ((":method", "POST"), (":path", "/v1/completions")):
        message.request_headers.headers.headers.add(key=name, raw_value=value.encode())
    return bytes(message.SerializeToString())


def part(body: bytes) -> bytes:
    """A part of its body that is not the last."""
    message = ProcessingRequest()
    message.request_body.body = body
    return bytes(message.SerializeToString())


def test_who_was_never_named_proves_nothing_of_those_that_were() -> None:
    """A gateway that goes its own way, or writes addresses its own way, opens no breaker."""
    message = ProcessingRequest()
    message.response_headers.headers.headers.add(key=":status", raw_value=b"200")
    spaces = message.metadata_context.filter_metadata
    spaces[wire.LB_NAMESPACE].fields[SERVED_KEY].string_value = "10.0.0.1"
    account = AnswerAccount(7, ["10.0.0.1:8000", "10.0.0.2:8000"], lambda: 0.0, sees_body=True)
    account.on_headers(message)
    account.on_body(1, end_of_stream=True)
    (measured,) = account.told
    assert isinstance(measured, RequestMeasured)
    assert measured.endpoint == "10.0.0.1"
