"""A block is read once, and anew as soon as the table says otherwise."""

import hpack
import pytest

from heliostat_extproc.grpc_streams.frames import ConnectionBrokenError
from heliostat_extproc.grpc_streams.header_blocks import HeaderReader


def literal(name: str, value: str) -> bytes:
    """A field that goes into the table (RFC 7541, section 6.2.1), without Huffman coding."""
    return b"\x40" + string(name) + string(value)


def string(text: str) -> bytes:
    """A string literal."""
    size, out = len(text), bytearray()
    if size < 127:
        return bytes([size]) + text.encode()
    out.append(127)
    size -= 127
    while size >= 128:
        out.append(size % 128 + 128)
        size //= 128
    out.append(size)
    return bytes(out) + text.encode()


NEWEST = b"\xbe"
"""A reference to the newest entry of the table."""


def test_a_table_that_turns_over_in_one_block_is_noticed() -> None:
    """Also where it holds as many entries as before, and the newest has the old one's place."""
    reader = HeaderReader()
    for value in "123456":
        reader.read(literal("a", "y" * 2100) + literal("tracestate", value * 3700))
        for _ in range(2):
            assert reader.read(NEWEST) == {"tracestate": value * 3700}


def test_a_block_that_changes_the_table_does_so_each_time() -> None:
    """It is not answered from memory: what follows refers to what it has added."""
    reader, block = HeaderReader(), literal("a", "1")
    for _ in range(3):
        assert reader.read(block) == {"a": "1"}
    assert reader.read(b"\xc0") == {"a": "1"}, "three entries are there"


def test_any_headers_read_as_they_were_written() -> None:
    """With an encoder that remembers, headers that come again and some that do not."""
    encoder, reader = hpack.Encoder(), HeaderReader()
    for number in range(300):
        said = {":path": "/x", "same": "always", "often": str(number // 7), "never": str(number)}
        assert reader.read(encoder.encode(said.items())) == said


def test_a_smaller_table_is_noticed() -> None:
    """A change of its size alone drops entries."""
    reader = HeaderReader()
    reader.read(literal("a", "1"))
    assert reader.read(NEWEST) == {"a": "1"}
    reader.read(b"\x20")  # a table of no bytes
    with pytest.raises(ConnectionBrokenError):
        reader.read(NEWEST)
