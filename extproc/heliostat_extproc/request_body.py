"""Reads a request's body once, from the bytes as they came.

The router needs a handful of fields and the prompt's hash; everything else stays raw and is never
re-encoded. The prompt is hashed from the request's own JSON: a conversation's next turn repeats the
messages before it byte for byte, so equal blocks of bytes mean equal blocks of prompt.
"""

import re
from dataclasses import dataclass
from itertools import islice

import msgspec
from xxhash import xxh3_64_intdigest

from heliostat_extproc.errors import InputError, Reason
from heliostat_routing.settings import BLOCK_BYTES

_WHITESPACE = b" \t\r\n"
_MODEL_VALUE = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')
_RENAME_TRIES = 16
_EMPTY = msgspec.Raw(b"")


class MalformedBodyError(InputError):
    """The body is not a request that an OpenAI-shaped engine could serve."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.MALFORMED_REQUEST, detail)


class _Body(msgspec.Struct, gc=False):
    """The fields that the router reads; all others are skipped, though checked to be JSON."""

    model: str
    stream: bool | None = None
    max_tokens: int | float | None = None
    max_completion_tokens: int | float | None = None
    max_output_tokens: int | float | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    tools: msgspec.Raw = _EMPTY
    system: msgspec.Raw = _EMPTY
    instructions: msgspec.Raw = _EMPTY
    messages: msgspec.Raw = _EMPTY
    prompt: msgspec.Raw = _EMPTY
    input: msgspec.Raw = _EMPTY


_decode = msgspec.json.Decoder(_Body).decode


@dataclass(frozen=True, slots=True)
class PromptDigest:
    """A prompt as the core sees it: chained keys of its full blocks, its length, its affinity.

    `affinity_key` comes from the caller's `prompt_cache_key` or `user`, else from the prompt's
    first block.
    """

    block_keys: tuple[int, ...]
    prompt_bytes: int
    affinity_key: int


@dataclass(frozen=True, slots=True)
class RequestBody:
    """What the router knows of one request."""

    model: str
    max_output_tokens: int | None
    affinity: str | None
    preamble: bytes
    """What an engine's template puts before the prompt: tools, then system or instructions."""
    prompt: memoryview

    def digest(self, model: str, adapter: str | None) -> PromptDigest:
        """Hash the prompt as this model and adapter will cache it.

        Two requests share their first n keys exactly if model and adapter agree, and the bytes of
        preamble and prompt up to the end of the n-th block. A block that is not full has no key.
        """
        key = xxh3_64_intdigest(f"{model}\0{adapter or ''}".encode())
        text = memoryview(self.preamble + self.prompt) if self.preamble else self.prompt
        size = len(text)
        keys = []
        for start in range(0, size - BLOCK_BYTES + 1, BLOCK_BYTES):
            key = xxh3_64_intdigest(text[start : start + BLOCK_BYTES], key)
            keys.append(key)
        if self.affinity is not None:
            affinity_key = xxh3_64_intdigest(self.affinity.encode())
        else:
            affinity_key = keys[0] if keys else xxh3_64_intdigest(text, key)
        return PromptDigest(tuple(keys), size, affinity_key)


def parse_request_body(body: bytes) -> RequestBody:
    """Read the body; raise `MalformedBodyError`, fit to show to the client, if it cannot be."""
    try:
        if not body.isascii():
            body.decode()
        fields = _decode(body)
    except UnicodeDecodeError as error:
        raise MalformedBodyError(f"the body is not UTF-8 (byte {error.start})") from error
    except RecursionError as error:
        raise MalformedBodyError("the body is nested too deeply") from error
    except msgspec.ValidationError as error:
        raise MalformedBodyError(_readable(str(error))) from error
    except msgspec.DecodeError as error:
        raise MalformedBodyError(f"the body is not JSON: {_readable(str(error))}") from error
    if not fields.model:
        raise MalformedBodyError("`model` must not be empty")
    limit = fields.max_completion_tokens or fields.max_tokens or fields.max_output_tokens or 0
    return RequestBody(
        model=fields.model,
        max_output_tokens=int(limit) if 0 < limit < 1e9 else None,
        affinity=fields.prompt_cache_key or fields.user or None,
        preamble=b"".join(map(_given, (fields.tools, fields.system, fields.instructions))),
        prompt=_open_ended(
            _given(fields.messages) or _given(fields.prompt) or _given(fields.input)
        ),
    )


def rename_model(body: bytes, model: str, new_model: str) -> bytes:
    """Replace the value of `model` and nothing else; raise `MalformedBodyError` if it is hidden.

    An unescaped `"model":` is always a key, though maybe one further down: each try is checked.
    """
    for match in islice(_MODEL_VALUE.finditer(body), _RENAME_TRIES):
        if msgspec.json.decode(match[1]) == model:
            start, end = match.span(1)
            renamed = b"".join((body[:start], msgspec.json.encode(new_model), body[end:]))
            if _decode(renamed).model == new_model:
                return renamed
    raise MalformedBodyError("write the key `model` without escapes, and once")


def _given(raw: msgspec.Raw) -> memoryview:
    """Take a field's bytes; `null` is the same as absent."""
    text = memoryview(raw)
    return text[:0] if bytes(text[:5]) == b"null" else text


def _open_ended(text: memoryview) -> memoryview:
    """Drop what closes an array or a string: what a longer prompt would have in its place."""
    if len(text) < 2 or text[-1] not in b']"':
        return text
    text = text[:-1]
    tail = bytes(text[-BLOCK_BYTES:])
    return text[: len(text) - len(tail) + len(tail.rstrip(_WHITESPACE))]


def _readable(message: str) -> str:
    """Put a decoder's message in the words of a client: `$.model` is the field `model`."""
    return message.replace("`$.", "`").replace("Object missing required field", "missing field")
