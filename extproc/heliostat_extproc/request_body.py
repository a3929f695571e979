"""Reads a request's body once, from the bytes as they came.

The router needs a handful of fields and the prompt's hash; everything else stays raw and is never
re-encoded. The prompt is hashed from the request's own JSON: a conversation's next turn repeats the
messages before it byte for byte, so equal blocks of bytes mean equal blocks of prompt. The fields
are the same whatever the API; no two of them carry a prompt under one name.
"""

import re
from codecs import getincrementaldecoder
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice

import msgspec
from xxhash import xxh3_64_intdigest

from heliostat_extproc.apis import APIS, Api, BodyFormat
from heliostat_extproc.errors import InputError, Reason
from heliostat_extproc.form_body import FormPart, read_form
from heliostat_extproc.prompt_text import (
    media_digest,
    prompt_text,
    without_changing_line,
    without_moving_marks,
)
from heliostat_routing.settings import BLOCK_BYTES

_CHAT = APIS["/v1/chat/completions"]
_MESSAGES = APIS["/v1/messages"]
_MODEL_VALUE = re.compile(rb'"model"\s*+:\s*+("[^"\\]*+(?:\\.[^"\\]*+)*+")')
"""Possessive: what could be tried anew is kept for each character, a hundred bytes of it."""
_RENAME_TRIES = 16
_RENAME_BYTES = 64 * 1024 * 1024
"""To decode at most while the key to replace is looked for: no body may hold up all others."""
_LONE_SURROGATE = re.compile(
    rb"\\u[dD](?:[89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..\\u[dD])[c-fC-F])"
)
_SLICE_BYTES = 256 * 1024
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
    cache_salt: str | None = None
    previous_response_id: msgspec.Raw = _EMPTY
    background: msgspec.Raw = _EMPTY
    metadata: msgspec.Raw = _EMPTY
    tools: msgspec.Raw = _EMPTY
    system: msgspec.Raw = _EMPTY
    instructions: msgspec.Raw = _EMPTY
    messages: msgspec.Raw = _EMPTY
    prompt: msgspec.Raw = _EMPTY
    input: msgspec.Raw = _EMPTY
    query: msgspec.Raw = _EMPTY
    queries: msgspec.Raw = _EMPTY
    text_1: msgspec.Raw = _EMPTY
    data_1: msgspec.Raw = _EMPTY
    documents: msgspec.Raw = _EMPTY
    items: msgspec.Raw = _EMPTY
    text_2: msgspec.Raw = _EMPTY
    data_2: msgspec.Raw = _EMPTY


class _Metadata(msgspec.Struct, gc=False):
    user_id: str | None = None


_decode = msgspec.json.Decoder(_Body).decode
_decode_metadata = msgspec.json.Decoder(_Metadata).decode


@dataclass(frozen=True, slots=True)
class PromptDigest:
    """A prompt as the core sees it: chained keys of its full blocks, its length, its affinity.

    `affinity_key` comes from the caller's `prompt_cache_key`, `user` or `metadata.user_id`, else
    from the prompt's first block.
    """

    block_keys: tuple[int, ...]
    prompt_bytes: int
    affinity_key: int


_NO_PROMPT = memoryview(b"")


@dataclass(frozen=True, slots=True)
class RequestBody:
    """What the router knows of one request."""

    model: str
    max_output_tokens: int | None
    affinity: str | None
    preamble: bytes
    """What an engine's template puts before the prompt: tools, then system or instructions."""
    prompt: memoryview
    renamed: Callable[[str], bytes]
    """Gives the body with another model's name and nothing else changed; raises InputError where
    that cannot be."""
    salt: str | None = None
    """What keeps the caches of clients apart who do not send the same."""

    def digest(self, model: str, adapter: str | None) -> PromptDigest:
        """Hash the prompt as this model and adapter will cache it.

        Two requests share their first n keys exactly if model, adapter and salt agree, and the
        bytes of preamble and prompt up to the end of the n-th block. A block that is not full has
        no key.
        """
        root = (model, adapter or "") if self.salt is None else (model, adapter or "", self.salt)
        key = xxh3_64_intdigest("\0".join(root).encode())
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


def read_request(body: bytes, api: Api, content_type: str) -> RequestBody:
    """Read the body of a request to this API; raise InputError if it cannot be."""
    if api.body is BodyFormat.FORM:
        return parse_request_form(body, content_type)
    return parse_request_body(body, api)


def parse_request_body(body: bytes, api: Api = _CHAT) -> RequestBody:
    """Read the body; raise InputError, fit to show to the client, if it cannot be."""
    fields = _parse(body)
    if not fields.model:
        raise MalformedBodyError("`model` must not be empty")
    if not api.stateless:
        _check_state(fields)
    preamble, prompt = _prompt_of(fields, api) if api.computes else (b"", _NO_PROMPT)
    return RequestBody(
        model=fields.model,
        max_output_tokens=_output_limit(fields) if api.generates else 0,
        affinity=fields.prompt_cache_key or fields.user or _user_of(fields, api),
        preamble=preamble,
        prompt=prompt,
        renamed=partial(rename_model, body, fields.model),
        salt=fields.cache_salt or None,
    )


def parse_request_form(body: bytes, content_type: str) -> RequestBody:
    """Read a form; raise InputError, fit to show to the client, if it cannot be."""
    parts = read_form(body, content_type)
    models = [part for part in parts if part.name == "model" and not part.is_file]
    if len(models) != 1:
        raise MalformedBodyError("the form must have one field `model`")
    try:
        model = body[models[0].start : models[0].end].decode()
    except UnicodeDecodeError as error:
        raise MalformedBodyError("`model` is not UTF-8") from error
    if not model:
        raise MalformedBodyError("`model` must not be empty")
    content = memoryview(body)
    media = (content[part.start : part.end] for part in parts if part.is_file)
    return RequestBody(
        model=model,
        max_output_tokens=None,
        affinity=None,
        preamble=b"",
        prompt=memoryview(b"".join(map(media_digest, media))),
        renamed=partial(_rename_part, body, models[0]),
    )


def _parse(body: bytes) -> _Body:
    try:
        if not body.isascii():
            _check_utf8(body)
        return _decode(body)
    except RecursionError as error:
        raise MalformedBodyError("the body is nested too deeply") from error
    except msgspec.ValidationError as error:
        raise MalformedBodyError(_readable(str(error))) from error
    except msgspec.DecodeError as error:
        raise MalformedBodyError(_why_no_json(body, str(error))) from error


def _check_state(fields: _Body) -> None:
    """Raise InputError for what only the one engine could serve that has answered before."""
    for name in ("previous_response_id", "background"):
        if bytes(getattr(fields, name)) not in (b"", b"null", b"false", b'""'):
            raise InputError(
                Reason.UNSUPPORTED, f"`{name}`: no answer is kept; send the conversation in `input`"
            )


def _user_of(fields: _Body, api: Api) -> str | None:
    """Take the user of /v1/messages; others mean something else by `metadata`."""
    if api is not _MESSAGES or not _given(fields.metadata):
        return None
    try:
        return _decode_metadata(fields.metadata).user_id or None
    except msgspec.DecodeError:
        return None


def _output_limit(fields: _Body) -> int | None:
    limit = fields.max_completion_tokens or fields.max_tokens or fields.max_output_tokens or 0
    return int(limit) if 0 < limit < 1e9 else None


def _prompt_of(fields: _Body, api: Api) -> tuple[bytes, memoryview]:
    """Give what an engine's template puts before the prompt, and the prompt."""
    tools, system = _given(fields.tools), _given(fields.system)
    prompt = _given(fields.messages) or _given(fields.input) or _given(fields.prompt)
    if api is _MESSAGES:
        tools, system, prompt = map(without_moving_marks, (tools, system, prompt))
        system = without_changing_line(system)
    if not prompt:
        prompt = memoryview(b"".join(map(_given, _pairs(fields))))
    return b"".join((tools, system, _given(fields.instructions))), prompt_text(prompt)


def _pairs(fields: _Body) -> tuple[msgspec.Raw, ...]:
    """Give what is scored against what, under each of the names that engines know."""
    return (
        *(fields.query, fields.queries, fields.text_1, fields.data_1),
        *(fields.documents, fields.items, fields.text_2, fields.data_2),
    )


def _rename_part(body: bytes, part: FormPart, new_model: str) -> bytes:
    return b"".join((body[: part.start], new_model.encode(), body[part.end :]))


def rename_model(body: bytes, model: str, new_model: str) -> bytes:
    """Replace the value of `model` and nothing else; raise `MalformedBodyError` if it is hidden.

    An unescaped `"model":` is always a key, though maybe one further down: each try is checked.
    """
    tries = min(_RENAME_TRIES, max(2, _RENAME_BYTES // len(body)))
    for match in islice(_MODEL_VALUE.finditer(body), tries):
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


def _check_utf8(body: bytes) -> None:
    """Raise MalformedBodyError where it is not UTF-8; the text is never there as a whole."""
    decoder = getincrementaldecoder("utf-8")()
    for start in range(0, len(body), _SLICE_BYTES):
        end, begun_bytes = start + _SLICE_BYTES, len(decoder.getstate()[0])
        try:
            decoder.decode(body[start:end], final=end >= len(body))
        except UnicodeDecodeError as error:
            at = start - begun_bytes + error.start
            raise MalformedBodyError(f"the body is not UTF-8 (byte {at})") from error


def _why_no_json(body: bytes, message: str) -> str:
    """Put the decoder's message in better words where it has none for what is wrong."""
    if not body.strip():
        return "the body is empty"
    if _LONE_SURROGATE.search(body):
        return "the body is not JSON: a string has half of a surrogate pair (\\ud800 to \\udfff)"
    return f"the body is not JSON: {_readable(message)}"


def _readable(message: str) -> str:
    """Put a decoder's message in the words of a client: `$.model` is the field `model`."""
    return message.replace("`$.", "`").replace("Object missing required field", "missing field")
