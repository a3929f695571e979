"""What an onlooker sees of an engine between its events."""

import pytest

from .fake_port import SMALL, FakePort, Requests


@pytest.mark.parametrize("seconds", [0.05, 0.5, 1.7, 3.1, 6.0])
def test_looking_tells_what_advancing_would(seconds: float) -> None:
    """Progress and free blocks are those of the engine once it has advanced."""
    port, make = FakePort(engines=1, profile=SMALL), Requests()
    host = port.engines[0]
    for number in range(3):
        assert host.submit(make((number, 300), output_tokens=40 + 30 * number))
    port.run(seconds)
    engine = host.engine
    seen, blocks = engine.unfinished(port.now), engine.available_blocks(port.now)
    engine.advance(port.now)
    assert engine.unfinished(port.now) == seen
    assert engine.available_blocks(port.now) == blocks == engine.pool.available_blocks
    for member in seen:
        request = host.requests[member.request_id]
        output = engine.output_tokens(member.request_id)
        assert member.remaining_output_tokens == request.output_tokens - output
