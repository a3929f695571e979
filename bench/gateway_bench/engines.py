"""Engines that cost next to nothing: one process answers for every address of 127.0.0.0/8.

A listener on all addresses makes any number of endpoints of one port. What an engine answers, the
request says in a header: at once, in so many chunks over a time, or never. Each address counts what
it has served, as its /metrics then tells.

    python bench/gateway_bench/engines.py --port 9400
"""

import argparse
import asyncio
from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

import uvloop

ANSWER_HEADER = "x-bench-answer"
CHUNKS = 300
"""Of a streamed answer."""
STREAM_SECONDS = 0.6
KV_CAPACITY_TOKENS = 2_000_000
OUTPUT_TOKENS = 64
_BYTES_PER_TOKEN = 4
_MARK = f"\r\n{ANSWER_HEADER}: ".encode()
_LENGTH = b"\r\ncontent-length: "
_USAGE = b'"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}'
_CHUNK = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":0,"model":"bench",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'
)


class Answer(StrEnum):
    """How an engine answers."""

    PLAIN = "plain"
    """With one JSON object, at once."""
    STREAM = "stream"
    """With a stream of chunks over `STREAM_SECONDS`."""
    SLOW = "slow"
    """With one chunk, ending as late as a stream does: what a stream's chunks are compared with."""
    NEVER = "never"


@dataclass
class Counters:
    """What one engine has served."""

    running: int = 0
    finished: int = 0
    prompt_tokens: int = 0

    def page(self) -> bytes:
        """Its /metrics, with as many lines around what matters as vLLM's."""
        return _PAGE % {
            b"running": self.running,
            b"finished": self.finished,
            b"prompt": self.prompt_tokens,
            b"generated": self.finished * OUTPUT_TOKENS,
            b"first": self.finished + self.running,
        }


def _histogram(name: str) -> str:
    return "".join(
        f'vllm:{name}_bucket{{engine="0",model_name="bench",le="{bound}"}} 0\n'
        for bound in range(40)
    )


_PAGE = (
    "".join(_histogram(f"quiet_{number}_seconds") for number in range(4))
    + """
vllm:num_requests_running{engine="0",model_name="bench"} %(running)d
vllm:num_requests_waiting{engine="0",model_name="bench"} 0
vllm:kv_cache_usage_perc{engine="0",model_name="bench"} 0.1
vllm:request_success_total{engine="0",finished_reason="stop",model_name="bench"} %(finished)d
vllm:prompt_tokens_total{engine="0",model_name="bench"} %(prompt)d
vllm:generation_tokens_total{engine="0",model_name="bench"} %(generated)d
vllm:time_to_first_token_seconds_count{engine="0",model_name="bench"} %(first)d
"""
    + f'vllm:cache_config_info{{block_size="16",num_gpu_blocks="{KV_CAPACITY_TOKENS // 16}"}} 1\n'
    + "".join(_histogram(f"more_{number}_seconds") for number in range(4))
).encode()


class EngineConnection(asyncio.Protocol):
    """One connection of Envoy's, or of the scraper's."""

    def __init__(self, counters: defaultdict[str, Counters]) -> None:
        self._by_address = counters
        self._head = b""
        self._body_left = 0
        self._answer = Answer.PLAIN
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()
        self._counters = self._by_address[transport.get_extra_info("sockname")[0]]

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._counters.running -= 1

    def data_received(self, data: bytes) -> None:
        if self._body_left:
            self._on_body(len(data))
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return
        head, self._head = self._head[: end + 2], self._head[end + 4 :]
        if head.startswith(b"GET"):
            self._head = b""
            self._reply(self._counters.page(), b"text/plain")
            return
        lower = head.lower()
        self._answer = Answer(_field(lower, _MARK).decode() or Answer.PLAIN)
        self._body_left = self._length = int(_field(lower, _LENGTH))
        rest, self._head = len(self._head), b""
        self._on_body(rest)

    def _on_body(self, size: int) -> None:
        self._body_left -= size
        if not self._body_left:
            self._serve()

    def _serve(self) -> None:
        if self._answer is Answer.PLAIN:
            self._finish()
            self._reply(b'{"object":"chat.completion",%b}' % self._usage(), b"application/json")
            return
        self._counters.running += 1
        if self._answer is Answer.NEVER:
            self._timer = self._loop.call_later(3600.0, self._transport.close)
            return
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        self._chunks_left = CHUNKS if self._answer is Answer.STREAM else 1
        self._step_seconds = STREAM_SECONDS / self._chunks_left
        self._due_at = self._loop.time()
        self._stream()

    def _stream(self) -> None:
        if self._chunks_left:
            self._chunks_left -= 1
            self._write_chunk(_CHUNK)
            self._due_at += self._step_seconds
            self._timer = self._loop.call_at(self._due_at, self._stream)
            return
        self._timer = None
        self._counters.running -= 1
        self._finish()
        self._write_chunk(b'data: {"choices":[],%b}\n\ndata: [DONE]\n\n' % self._usage())
        self._transport.write(b"0\r\n\r\n")

    def _write_chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _finish(self) -> None:
        self._counters.finished += 1
        self._counters.prompt_tokens += self._length // _BYTES_PER_TOKEN

    def _usage(self) -> bytes:
        prompt = self._length // _BYTES_PER_TOKEN
        return _USAGE % (prompt, OUTPUT_TOKENS, prompt + OUTPUT_TOKENS)

    def _reply(self, body: bytes, kind: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b"
            % (kind, len(body), body)
        )


def _field(head: bytes, mark: bytes) -> bytes:
    start = head.find(mark)
    return b"" if start < 0 else head[start + len(mark) : head.find(b"\r\n", start + 2)]


async def serve(port: int) -> None:
    """Answer until killed."""
    counters: defaultdict[str, Counters] = defaultdict(Counters)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: EngineConnection(counters), "0.0.0.0", port, backlog=4096
    )
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))
