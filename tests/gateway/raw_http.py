"""HTTP/1 by hand: what no well-behaved client would send, and what comes back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

DEADLINE_SECONDS = 10.0
CHAT = b"POST /v1/chat/completions HTTP/1.1"


def request(body: bytes, *fields: bytes, line: bytes = CHAT, length: bool = True) -> bytes:
    """Write a request; `length` adds its Content-Length."""
    fields = (b"host: gateway", *fields)
    if length:
        fields = (*fields, b"content-length: %d" % len(body))
    return b"\r\n".join((line, *fields, b"", body))


def chunked(*chunks: bytes, trailers: bytes = b"") -> bytes:
    """Write a body in chunks."""
    framed = (b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"".join((*framed, b"0\r\n", trailers, b"\r\n"))


@dataclass(frozen=True)
class RawReply:
    """One whole answer."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def code(self) -> str:
        """The closed code of an error, which its body and its header must both tell."""
        error: dict[str, Any] = msgspec.json.decode(self.content)["error"]
        assert error["code"] == self.headers["x-heliostat-reason"]
        assert self.headers["content-type"] == "application/json"
        return str(error["code"])


@dataclass(frozen=True)
class RawConnection:
    """A connection on which the test says every byte."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Write these bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, *, with_body: bool = True) -> RawReply:
        """Read one answer; it must come whole before the deadline."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status_line, *lines = head.rstrip().split("\r\n")
            fields = (line.split(": ", 1) for line in lines)
            headers = {name.lower(): value for name, value in fields}
            content = b""
            if with_body:
                content = await self.reader.readexactly(int(headers.get("content-length", 0)))
            return RawReply(int(status_line.split()[1]), headers, content)

    async def rest(self) -> bytes:
        """Say that nothing follows, and read what still comes until the connection ends."""
        self.writer.write_eof()
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self.reader.read()


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[RawConnection]:
    """Open a connection to a gateway."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield RawConnection(reader, writer)
    finally:
        writer.close()


async def exchange(url: str, data: bytes, *, with_body: bool = True) -> RawReply:
    """Send these bytes on a connection of their own and read one answer."""
    async with connect(url) as connection:
        await connection.send(data)
        return await connection.reply(with_body=with_body)
