"""Load over kept connections, by a client that is as thin as can be: its CPU is not measured."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from gateway_bench.engines import ANSWER_HEADER, Answer

PREFIXES = 64
"""Shared beginnings of prompts: half of a body each."""
_TEXT_BYTES = 1024 * 1024
_LAST_CHUNK = b"0\r\n\r\n"


class Bodies:
    """Chat requests of one size: half of it one of the shared prefixes, the rest its own."""

    def __init__(self, size_bytes: int, model: str = "bench", seed: str = "bodies") -> None:
        self._random = random.Random(seed)
        letters = "abcdefghijklmnopqrstuvwxyz     "
        self._text = "".join(self._random.choices(letters, k=_TEXT_BYTES)).encode()
        shared = size_bytes // 2
        self._heads = [
            b'{"model":"%b","max_tokens":64,"messages":[{"role":"system","content":"%b"},'
            b'{"role":"user","content":"' % (model.encode(), self._slice(shared))
            for _ in range(PREFIXES)
        ]
        self._own_bytes = size_bytes - len(self._heads[0]) - len(_TAIL) - 16

    def next(self) -> bytes:
        """A body that nobody has seen."""
        head = self._random.choice(self._heads)
        own = b"%016x" % self._random.getrandbits(64)
        return b"".join((head, own, self._slice(self._own_bytes), _TAIL))

    def _slice(self, size: int) -> bytes:
        start = self._random.randrange(_TEXT_BYTES - size)
        return self._text[start : start + size]


_TAIL = b'"}]}'


@dataclass
class Tally:
    """What came of the requests that ended while it was open."""

    is_open: bool = False
    seconds: list[float] = field(default_factory=list)
    served: int = 0
    failures: Counter[int] = field(default_factory=Counter)
    """By HTTP status; 0 where the connection was closed or not made."""

    @property
    def failed(self) -> int:
        """How many were not answered with 200."""
        return self.failures.total()

    def latency_ms(self, share: float) -> float:
        """A percentile of the times from the request to the end of its answer."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000 if ordered else 0.0


class Connection(asyncio.Protocol):
    """One kept connection; calls back at the end of every answer."""

    def __init__(self, on_answer: Callable[["Connection", int, float], None]) -> None:
        self._on_answer = on_answer
        self._received = b""
        self._body_left: int | None = None
        self._status = 0
        self._sent_at = 0.0
        self._busy = False
        self.is_closed = False
        self.answer = Answer.PLAIN
        """What was asked for last."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        if self._busy:
            self._end(0)

    def send(self, body: bytes, answer: Answer) -> None:
        """Send one request."""
        self.answer = answer
        self._busy, self._body_left, self._received = True, None, b""
        self._sent_at = time.perf_counter()
        self._transport.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json"
            b"\r\naccept: */*\r\nuser-agent: bench\r\nauthorization: Bearer 0123456789abcdef\r\n"
            b"%b: %b\r\ncontent-length: %d\r\n\r\n"
            % (ANSWER_HEADER.encode(), answer.value.encode(), len(body))
        )
        self._transport.write(body)

    def close(self) -> None:
        """End the connection, whatever is under way."""
        self._busy = False
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._body_left is None:
            self._received += data
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data = self._received[:end].lower(), self._received[end + 4 :]
            self._received = b""
            self._status = int(head[9:12])
            at = head.find(b"content-length: ")
            self._body_left = -1 if at < 0 else int(head[at + 16 : at + 26].split()[0])
        if self._body_left >= 0:
            self._body_left -= len(data)
            if self._body_left == 0:
                self._end(self._status)
        else:
            self._received = (self._received + data)[-len(_LAST_CHUNK) :]
            if self._received == _LAST_CHUNK:
                self._end(self._status)

    def _end(self, status: int) -> None:
        self._busy = False
        self._on_answer(self, status, time.perf_counter() - self._sent_at)


class Load:
    """Keeps so many requests under way at one port, until it is closed."""

    def __init__(self, port: int, bodies: Sequence[Bodies], answer: Answer) -> None:
        self._port = port
        self._bodies = bodies
        self._answer = answer
        self._connections: list[Connection] = []
        self._stopping = False
        self.tally = Tally()

    async def start(self, concurrency: int, spread_seconds: float = 0.0) -> None:
        """Connect and begin, one connection after the other within this time."""
        loop = asyncio.get_running_loop()
        for number in range(concurrency):
            _, connection = await loop.create_connection(
                lambda: Connection(self._on_answer), "127.0.0.1", self._port
            )
            self._connections.append(connection)
            loop.call_later(spread_seconds * number / concurrency, self._send, connection)

    async def measure(self, seconds: float) -> Tally:
        """Count what ends within this time."""
        tally = self.tally = Tally(is_open=True)
        await asyncio.sleep(seconds)
        tally.is_open = False
        return tally

    async def stop(self) -> None:
        """Let what is under way end for a moment, then close all."""
        self._stopping = True
        await asyncio.sleep(0.05)
        for connection in self._connections:
            connection.close()

    def _send(self, connection: Connection) -> None:
        if not self._stopping:
            connection.send(random.choice(self._bodies).next(), self._answer)

    def _on_answer(self, connection: Connection, status: int, seconds: float) -> None:
        if self.tally.is_open:
            if status == 200:
                self.tally.seconds.append(seconds)
                self.tally.served += 1
            else:
                self.tally.failures[status] += 1
        if status and not self._stopping:
            self._send(connection)


class Pacer:
    """Sends requests at even intervals, over as many kept connections as it takes."""

    def __init__(self, port: int, bodies: Sequence[Bodies], streamed: int) -> None:
        """One request in so many is streamed; of the others the answer comes at once."""
        self._port = port
        self._bodies = bodies
        self._streamed = streamed
        self._free: list[Connection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._underway = 0
        self._tally = Tally(is_open=True)

    async def run(self, rate: float, seconds: float) -> None:
        """Send for so long, then wait for what is under way; what does not end has failed."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        for number in range(int(rate * seconds)):
            due_at = began_at + number / rate
            if due_at > loop.time():
                await asyncio.sleep(due_at - loop.time())
            self._underway += 1
            answer = Answer.PLAIN if number % self._streamed else Answer.STREAM
            connection = self._take_free()
            if connection is not None:
                self._send(connection, answer)
            else:
                task = asyncio.create_task(self._open(answer))
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)
        until = loop.time() + 10.0
        while self._underway and loop.time() < until:  # noqa: ASYNC110 - polled at the end only
            await asyncio.sleep(0.05)
        self._tally.failures[0] += self._underway
        for connection in self._free:
            connection.close()

    def _take_free(self) -> Connection | None:
        """Take the connection that was used last; one that has been closed meanwhile is none."""
        while self._free:
            connection = self._free.pop()
            if not connection.is_closed:
                return connection
        return None

    def take_tally(self) -> Tally:
        """What has ended since this was last asked."""
        tally, self._tally = self._tally, Tally(is_open=True)
        return tally

    async def _open(self, answer: Answer) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(self._on_answer), "127.0.0.1", self._port
            )
        except OSError:
            self._underway -= 1
            self._tally.failures[0] += 1
            return
        self._send(connection, answer)

    def _send(self, connection: Connection, answer: Answer) -> None:
        connection.send(random.choice(self._bodies).next(), answer)

    def _on_answer(self, connection: Connection, status: int, seconds: float) -> None:
        self._underway -= 1
        if status:
            self._free.append(connection)
        if status == 200:
            if connection.answer is Answer.PLAIN:
                self._tally.seconds.append(seconds)
            self._tally.served += 1
        else:
            self._tally.failures[status] += 1
