"""What a gateway of others may send beside the core's word."""

import pytest

from heliostat_extproc.conversation import ProtocolError, Sender
from heliostat_extproc.endpoint_picker.exchange import PickerExchange
from heliostat_extproc.exchange import ExchangeSettings

from .test_exchange import FakeDirectory


@pytest.mark.parametrize("data", [b"\xff\xff", b""])
def test_what_is_no_message_is_a_protocol_error_also_while_held(data: bytes) -> None:
    """It ends the stream with a status, as at any other time."""
    machine = PickerExchange(7, FakeDirectory(), ExchangeSettings(1000), Sender(), lambda: 0.0)
    with pytest.raises(ProtocolError):
        machine.receive_while_held(data)
