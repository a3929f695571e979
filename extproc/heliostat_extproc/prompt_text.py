"""What of a prompt's bytes stands for the tokens that an engine computes, and caches.

Prefixes are matched on the request's own bytes. Four things in them would mislead: images and
sound, whose base64 is far longer than what the engine makes of it; token ids, whose decimals are;
marks of a client's own cache, which move from turn to turn; and a line of one client's that differs
in every request, which engines leave out. Whatever is done about them goes from left to right and
looks at whole strings alone, so that a longer prompt keeps the bytes of the prompt that it extends.
"""

import re
from array import array

import msgspec
from xxhash import xxh3_128_digest

from heliostat_routing.settings import BLOCK_BYTES

MEDIA_BYTES = 4096
"""A string at least this long without a space, a quote or anything beyond ASCII is no text."""
MEDIA_SHRINK_RATIO = 64
FEWEST_MEDIA_BYTES = 1024
MOST_MEDIA_BYTES = 16 * 1024
"""What stands for such a string: so much less, within these bounds, at four bytes a token. A
photograph of 300 KB in base64 is about 1,200 tokens to an engine."""
MOST_TOKEN_LIST_BYTES = 8 * 1024 * 1024
"""A longer list of token ids is taken as the text that it is: no context is as long."""
MOST_TOKEN_LISTS = 1024
"""In one batch; a larger one is taken as text too."""
MOST_MARKS = 256
"""Marks of a client's own cache that are left out: providers take four."""

_WINDOW_BYTES = 256
_STRIDE_BYTES = MEDIA_BYTES - _WINDOW_BYTES
_WHITESPACE = b" \t\r\n"
_TOKEN_LIST = re.compile(rb"\[\s*(\[\s*)?[0-9]")
_MARK = b'"cache_control"'
_MARK_VALUE = re.compile(rb"\s*:\s*(?:\{[^{}]*\}|null)")
_CHANGING_LINE = re.compile(
    rb'\[\s*\{\s*"type"\s*:\s*"text"\s*,\s*"text"\s*:\s*"x-anthropic-billing-header'
    rb'(?:[^"\\]|\\.){0,1000}"\s*\}\s*,?\s*'
)
_decode_tokens = msgspec.json.Decoder(list[int]).decode
_decode_token_lists = msgspec.json.Decoder(list[list[int]]).decode


def prompt_text(raw: memoryview) -> memoryview:
    """Give the bytes that stand for a prompt, from its JSON: a string, a list, or token ids.

    What closes a list or a string is left out: a longer prompt has something else in its place.
    """
    tokens = _token_bytes(raw)
    return _condense_media(_open_ended(raw)) if tokens is None else tokens


def without_moving_marks(raw: memoryview) -> memoryview:
    """Leave out every `cache_control`, which says what a client's own provider should cache."""
    head, *rest = bytes(raw).split(_MARK, MOST_MARKS)
    if not rest:
        return raw
    pieces = [head]
    for piece in rest:
        value = _MARK_VALUE.match(piece)
        if value is None:
            pieces += (_MARK, piece)
        else:
            pieces[-1] = pieces[-1].rstrip(_WHITESPACE).removesuffix(b",")
            pieces.append(piece[value.end() :])
    return memoryview(b"".join(pieces))


def without_changing_line(raw: memoryview) -> memoryview:
    """Leave out a first system text that differs each time; vLLM does not compute it either."""
    line = _CHANGING_LINE.match(raw)
    return raw if line is None else raw[line.end() :]


def media_digest(content: bytes | memoryview) -> bytes:
    """Give the bytes that stand for an image or sound: equal only for equal content."""
    size = min(max(len(content) // MEDIA_SHRINK_RATIO, FEWEST_MEDIA_BYTES), MOST_MEDIA_BYTES)
    digest = xxh3_128_digest(content)
    return digest * (size // len(digest))


def _token_bytes(raw: memoryview) -> memoryview | None:
    """Give token ids at four bytes each, a batch of lists as one; None where it is no such list."""
    opening = _TOKEN_LIST.match(raw)
    if opening is None or len(raw) > MOST_TOKEN_LIST_BYTES:
        return None
    try:
        if opening[1]:
            if bytes(raw).count(b"[") > MOST_TOKEN_LISTS:
                return None
            ids = array("I")
            for prompt in _decode_token_lists(raw):
                ids.extend(prompt)
        else:
            ids = array("I", _decode_tokens(raw))
    except (msgspec.DecodeError, OverflowError):
        return None
    return memoryview(ids.tobytes())


def _open_ended(text: memoryview) -> memoryview:
    """Drop what closes an array or a string."""
    if len(text) < 2 or text[-1] not in b']"':
        return text
    text = text[:-1]
    tail = bytes(text[-BLOCK_BYTES:])
    return text[: len(text) - len(tail) + len(tail.rstrip(_WHITESPACE))]


def _condense_media(text: memoryview) -> memoryview:
    """Put a digest in the place of each string that is no text.

    Text is only sampled, at distances within which no such string can hide.
    """
    source, is_ascii = b"", False
    pieces: list[bytes | memoryview] = []
    done = at = 0
    while at + _WINDOW_BYTES <= len(text):
        if not _is_media(bytes(text[at : at + _WINDOW_BYTES])):
            at += _STRIDE_BYTES
            continue
        if not source:
            source = bytes(text)
            text, is_ascii = memoryview(source), source.isascii()
        start = source.rfind(b'"', done, at) + 1 or done
        end = source.find(b'"', at)
        if end < 0:
            break
        if end - start >= MEDIA_BYTES and source.find(b" ", start, end) < 0:
            media = text[start:end]
            if is_ascii or bytes(media).isascii():
                pieces += (text[done:start], media_digest(media))
                done = end
        at = end
    return memoryview(b"".join((*pieces, text[done:]))) if pieces else text


def _is_media(text: bytes) -> bool:
    return b" " not in text and b'"' not in text and text.isascii()
