"""Header blocks (RFC 7541): those of calls are read, those of answers are few and ready-made."""

from urllib.parse import quote

import hpack
from hpack.exceptions import HPACKError

from heliostat_extproc.grpc_streams.frames import (
    LARGEST_BLOCK_BYTES,
    ConnectionBrokenError,
    ErrorCode,
)

Headers = dict[str, str]

_LARGEST_LIST_BYTES = 4 * LARGEST_BLOCK_BYTES
"""Of what a block says: a reference of a byte can stand for a whole header."""
_MOST_CACHED = 256
_LARGEST_CACHED_BYTES = 4096
_STATUS_200 = b"\x88"
"""`:status: 200`, number 8 of the static table."""
_CONTENT_TYPE = b"\x0f\x10"
"""A literal that is not indexed, of name number 31."""


class HeaderReader:
    """Reads one connection's blocks.

    As long as the table of the connection is the same, so are the headers of the same block. A
    caller that calls again and again sends few others, and none that changes the table.
    """

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=_LARGEST_LIST_BYTES)
        self._cached: dict[bytes, Headers] = {}

    def read(self, block: bytes) -> Headers:
        """Read a block, repeated values with commas between. Raises ConnectionBrokenError."""
        known = self._cached.get(block)
        if known is not None:
            return known
        table = self._decoder.header_table
        before = table.maxsize, len(table.dynamic_entries)
        newest = table.dynamic_entries[0] if table.dynamic_entries else None
        try:
            fields = list(self._decoder.decode(block, raw=True))
        except (HPACKError, ValueError, IndexError) as error:
            problem = f"no header block: {error}"
            raise ConnectionBrokenError(ErrorCode.COMPRESSION_ERROR, problem) from error
        headers: Headers = {}
        for raw_name, raw_value in fields:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]},{value}" if name in headers else value
        # The table changes by a new first entry, which is another object, or by its limit.
        after = table.maxsize, len(table.dynamic_entries)
        is_same = not table.dynamic_entries or table.dynamic_entries[0] is newest
        if after != before or not is_same or len(self._cached) >= _MOST_CACHED:
            self._cached.clear()
        elif len(block) <= _LARGEST_CACHED_BYTES:
            self._cached[block] = headers
        return headers


def _literal(name: str, value: str) -> bytes:
    """A literal that is not indexed, with a new name (RFC 7541, section 6.2.2)."""
    return b"\x00" + _string(name) + _string(value)


def _string(text: str) -> bytes:
    data = text.encode("ascii")
    return _integer(len(data)) + data


def _integer(value: int) -> bytes:
    """A number with a prefix of seven bits (RFC 7541, section 5.1)."""
    if value < 0x7F:
        return bytes((value,))
    rest, out = value - 0x7F, bytearray((0x7F,))
    while rest >= 0x80:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


RESPONSE_BLOCK = _STATUS_200 + _CONTENT_TYPE + _string("application/grpc")
"""What every answer begins with."""


def trailers_block(status: int, message: str = "") -> bytes:
    """Write the trailers of an answer: the gRPC status, and a message where there is one."""
    block = _literal("grpc-status", str(status))
    if message:
        block += _literal("grpc-message", quote(message, safe=" !#$&'()*+,/:;=?@[]"))
    return block
