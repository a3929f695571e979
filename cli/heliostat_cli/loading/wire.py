"""OpenAI's wire, as bytes: requests are joined rather than encoded, answers searched not parsed."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from heliostat_cli.loading.histogram import DurationHistogram

_CONTENT = re.compile(rb'"content"\s*:\s*"((?:[^"\\]|\\.)*+)"')
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_ERROR = re.compile(rb'\s*\{\s*"error"\s*:')
_MAX_LINE_BYTES = 1 << 20
_MAX_CODE_CHARACTERS = 60


def encode_message(role: str, escaped_content: bytes) -> bytes:
    """One chat message, from content that is already escaped for JSON."""
    return b'{"role":"%b","content":"%b"}' % (role.encode(), escaped_content)


def encode_request(model: str, messages: Sequence[bytes], output_tokens: int) -> bytes:
    """A streamed chat completion with usage, of exactly `output_tokens` where the engine can."""
    return (
        b'{"model":%b,"stream":true,"stream_options":{"include_usage":true},"temperature":0,'
        b'"ignore_eos":true,"max_tokens":%d,"messages":[%b]}'
        % (json.dumps(model).encode(), output_tokens, b",".join(messages))
    )


@dataclass(frozen=True, slots=True)
class Usage:
    """What the engine says it processed."""

    prompt_tokens: int
    output_tokens: int
    cached_tokens: int | None
    """Prompt tokens found in the engine's cache; None where the engine does not say."""


def error_code(body: bytes) -> str | None:
    """The `error.code` (or its type, where the code is a number) of an OpenAI-shaped error body."""
    try:
        error = json.loads(body)["error"]
        code = error.get("code")
        name = code if isinstance(code, str) and code else error.get("type")
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return name[:_MAX_CODE_CHARACTERS] if isinstance(name, str) and name else None


def _parse_usage(line: bytes) -> Usage | None:
    try:
        usage = json.loads(line)["usage"]
        details = usage.get("prompt_tokens_details") or {}
        cached = details.get("cached_tokens")
        return Usage(
            prompt_tokens=int(usage["prompt_tokens"]),
            output_tokens=int(usage.get("completion_tokens") or 0),
            cached_tokens=None if cached is None else int(cached),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


class AnswerReader:
    """Reads one streamed answer, however its bytes are cut into pieces.

    `token_gaps` takes the time between chunks with content as they come.
    """

    def __init__(self, token_gaps: DurationHistogram, keep_text: bool) -> None:
        self._token_gaps = token_gaps
        self._keep_text = keep_text
        self._partial = bytearray()
        self._texts: list[bytes] = []
        self._last_content_at = 0.0
        self.first_content_at: float | None = None
        self.content_chunks = 0
        self.usage: Usage | None = None
        self.is_done = False
        """Whether the stream said that it is complete."""
        self.failure: str | None = None
        """Why the stream is not an answer, in the words of the report."""

    @property
    def escaped_text(self) -> bytes:
        """The answer as it stands inside JSON quotes; empty unless text is kept."""
        return b"".join(self._texts)

    def feed(self, piece: bytes, now: float) -> None:
        """Take the next bytes, received at `now`."""
        if self._partial:
            self._partial += piece
            piece = bytes(self._partial)
            self._partial.clear()
        *lines, rest = piece.split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._on_data(line[5:], now)
        if len(rest) > _MAX_LINE_BYTES:
            self.failure = self.failure or "sse-error line-too-long"
        elif rest:
            self._partial += rest

    def _on_data(self, data: bytes, now: float) -> None:
        content = _CONTENT.search(data)
        if content is not None and content[1]:
            self._on_content(content[1], now)
        elif _ERROR.match(data):
            self.failure = self.failure or f"sse-error {error_code(data) or 'without-code'}"
        elif data.strip() == b"[DONE]":
            self.is_done = True
        if _USAGE.search(data):
            self.usage = _parse_usage(data) or self.usage

    def _on_content(self, escaped: bytes, now: float) -> None:
        if self.first_content_at is None:
            self.first_content_at = now
        else:
            self._token_gaps.record(now - self._last_content_at)
        self._last_content_at = now
        self.content_chunks += 1
        if self._keep_text:
            self._texts.append(escaped)
