"""HTTP/2 frames (RFC 9113, sections 4 and 6): how they are read and written."""

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES = 9
LARGEST_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME_BYTES = 16_384
LARGEST_BLOCK_BYTES = 256 * 1024
"""Of a header block. Envoy takes 96 KiB, and puts a client's `tracestate` into its calls."""

_HEAD = struct.Struct(">HBBBL")
_SETTING = struct.Struct(">HL")
_NUMBER = struct.Struct(">L")


class Kind:
    """Types of frames; plain numbers, as each frame is asked for them."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag:
    """Flags; `ACK` is that of SETTINGS and PING."""

    ACK = 0x1
    END_STREAM = 0x1
    END_HEADERS = 0x4
    PADDED = 0x8
    PRIORITY = 0x20


class Setting(IntEnum):
    """Parameters of SETTINGS."""

    HEADER_TABLE_SIZE = 1
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ErrorCode(IntEnum):
    """Why a stream or a connection ends."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ConnectionBrokenError(Exception):
    """The other end has broken the protocol: the connection cannot go on."""

    def __init__(self, code: ErrorCode, problem: str) -> None:
        super().__init__(problem)
        self.code = code


def read_head(data: bytes, at: int) -> tuple[int, int, int, int]:
    """Read a frame's head: its length without the head, type, flags and stream."""
    high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
    return high << 8 | low, kind, flags, stream & 0x7FFFFFFF


def write_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Write a frame."""
    return write_head(len(payload), kind, flags, stream) + payload


def write_head(length: int, kind: int, flags: int, stream: int) -> bytes:
    """Write a frame's head alone."""
    return _HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream)


def write_settings(settings: dict[Setting, int]) -> bytes:
    """Write a SETTINGS frame."""
    payload = b"".join(_SETTING.pack(name, value) for name, value in settings.items())
    return write_frame(Kind.SETTINGS, 0, 0, payload)


def read_settings(payload: bytes) -> dict[int, int]:
    """Read the parameters of a SETTINGS frame; later ones replace earlier ones."""
    if len(payload) % _SETTING.size:
        raise ConnectionBrokenError(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
    return dict(_SETTING.iter_unpack(payload))


def write_window_update(stream: int, increment: int) -> bytes:
    """Write a WINDOW_UPDATE frame; stream 0 is the connection."""
    return write_frame(Kind.WINDOW_UPDATE, 0, stream, _NUMBER.pack(increment))


def read_window_update(payload: bytes) -> int:
    """Read an increment; 0, which is none, is for the caller to refuse."""
    return read_number(payload, "WINDOW_UPDATE") & 0x7FFFFFFF


def write_reset(stream: int, code: ErrorCode) -> bytes:
    """Write a RST_STREAM frame."""
    return write_frame(Kind.RST_STREAM, 0, stream, _NUMBER.pack(code))


def write_goaway(last_stream: int, code: ErrorCode, problem: str = "") -> bytes:
    """Write a GOAWAY frame."""
    payload = _NUMBER.pack(last_stream) + _NUMBER.pack(code) + problem.encode()
    return write_frame(Kind.GOAWAY, 0, 0, payload)


def read_number(payload: bytes, name: str) -> int:
    """Read a payload that is one number of 32 bits."""
    if len(payload) != _NUMBER.size:
        raise ConnectionBrokenError(ErrorCode.FRAME_SIZE_ERROR, f"{name} of a wrong size")
    number: int = _NUMBER.unpack(payload)[0]
    return number


def without_padding(flags: int, payload: bytes, *, priority: bool = False) -> bytes:
    """Take off the padding of DATA or HEADERS, and the priority that HEADERS may have."""
    start, end = 0, len(payload)
    if flags & Flag.PADDED:
        if not payload:
            raise ConnectionBrokenError(ErrorCode.FRAME_SIZE_ERROR, "padding without a length")
        start, end = 1, end - payload[0]
    if priority and flags & Flag.PRIORITY:
        start += 5
    if start > end:
        raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "more padding than there is")
    return payload[start:end]
