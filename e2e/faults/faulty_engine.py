"""An engine on vLLM's wire that does what the test tells it, down to the packets."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum

TOKENS = 5
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CUT_OFF = struct.pack("ii", 1, 0)


class Mode(StrEnum):
    """What happens to a request."""

    SERVE = "serve"
    RESET = "reset"
    ERROR_500 = "error-500"
    ERROR_503 = "error-503"
    STALL_BEFORE_HEADERS = "stall-before-headers"
    STALL_BEFORE_TOKEN = "stall-before-token"  # noqa: S105
    STALL_IN_STREAM = "stall-in-stream"
    CUT_STREAM = "cut-stream"
    STREAM_ERROR = "stream-error"
    PAUSED = "paused"
    """Accepted, and neither run nor counted as waiting, as vLLM does after `/pause`."""


class Report(StrEnum):
    """What /metrics says."""

    TRUE = "true"
    NEGATIVE = "negative"
    NAN = "nan"
    HUGE = "huge"
    ABSENT = "absent"
    NONSENSE = "nonsense"


@dataclass
class FaultyEngine:
    """One engine; its port stays, also while it refuses."""

    port: int
    mode: Mode = Mode.SERVE
    report: Report = Report.TRUE
    token_seconds: float = 0.01
    requests: int = 0
    """Requests that have come, since it was last set to 0."""
    served: int = 0
    running: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Streams wait for it after their first token."""
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def address(self) -> str:
        """Where it is."""
        return f"127.0.0.1:{self.port}"

    async def listen(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def die(self) -> None:
        """End all connections and refuse new ones, as a process that is killed."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            _reset(writer)

    async def restart(self) -> None:
        """Come back with nothing: counters and requests are gone."""
        await self.die()
        self.served = self.running = 0
        await self.listen()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                headers = dict(
                    line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line
                )
                await reader.readexactly(int(headers.get("content-length", 0)))
                if head.startswith("GET "):
                    _write_page(writer, self._metrics())
                else:
                    await self._answer(writer)
                await writer.drain()
        self._writers.discard(writer)
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        self.requests += 1
        match self.mode:
            case Mode.SERVE | Mode.STALL_IN_STREAM | Mode.CUT_STREAM:
                await self._stream(writer)
            case Mode.RESET:
                _reset(writer)
            case Mode.ERROR_500 | Mode.ERROR_503:
                status = self.mode.removeprefix("error-")
                writer.write(f"HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n".encode())
            case Mode.STALL_BEFORE_HEADERS:
                await _until_left(writer)
            case Mode.STALL_BEFORE_TOKEN | Mode.PAUSED:
                writer.write(HEAD)
                await writer.drain()
                await _until_left(writer)
            case Mode.STREAM_ERROR:
                error = {"message": "no room", "type": "ServerError", "code": 503}
                writer.write(HEAD + _event({"error": error}) + b"0\r\n\r\n")

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        self.running += 1
        try:
            writer.write(HEAD)
            for number in range(TOKENS):
                await asyncio.sleep(self.token_seconds)
                delta = {"delta": {"content": "a"}}
                writer.write(_event({"id": self.address, "choices": [delta]}))
                await writer.drain()
                if number == 0 and self.mode is Mode.STALL_IN_STREAM:
                    await self.gate.wait()
                if number == 0 and self.mode is Mode.CUT_STREAM:
                    _reset(writer)
                    return
            usage = {"prompt_tokens": 5, "completion_tokens": TOKENS, "total_tokens": 5 + TOKENS}
            writer.write(_event({"id": self.address, "choices": [], "usage": usage}))
            writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
            self.served += 1
        finally:
            self.running -= 1

    def _metrics(self) -> str:
        waiting: object = 0
        match self.report:
            case Report.NEGATIVE:
                waiting = -5
            case Report.NAN:
                waiting = "NaN"
            case Report.HUGE:
                waiting = "1e300"
            case Report.NONSENSE:
                return "\x00\xff{}}{\n" * 100
            case Report.ABSENT:
                return "# nothing here\n"
        values = {
            "num_requests_running": self.running,
            "num_requests_waiting": waiting,
            "kv_cache_usage_perc": 0.1,
            "request_success_total": self.served,
            "prompt_tokens_total": 5 * self.served,
            "generation_tokens_total": TOKENS * self.served,
            "time_to_first_token_seconds_count": self.served,
        }
        return "".join(f"vllm:{name} {value}\n" for name, value in values.items())


def _event(data: object) -> bytes:
    text = f"data: {json.dumps(data)}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(text), text)


def _write_page(writer: asyncio.StreamWriter, page: str) -> None:
    body = page.encode("latin-1")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CUT_OFF)
    writer.transport.abort()


async def _until_left(writer: asyncio.StreamWriter) -> None:
    """Say nothing until the other side has gone."""
    with suppress(ConnectionError):
        await writer.wait_closed()
    raise ConnectionResetError


@asynccontextmanager
async def running_engine() -> AsyncIterator[FaultyEngine]:
    """An engine that serves, until the context ends."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    engine = FaultyEngine(port)
    await engine.listen()
    try:
        yield engine
    finally:
        engine.gate.set()
        await engine.die()
