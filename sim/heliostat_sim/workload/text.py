"""Deterministic filler text, made fast enough to be written while a load runs."""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

CHARACTERS_PER_TOKEN = 4
"""One token is one word of three letters and a space."""
_CACHED_TEXTS = 8192
"""At 512 tokens a text, 16 MiB: most reuse of a trace's blocks is recent."""

_ONSETS = bytes(b"bcdfghjklmnprstv"[byte >> 4] for byte in range(256))
_VOWELS = bytes(b"aeiou"[byte % 5] for byte in range(256))
_CODAS = bytes(b"dlmnrstk"[(byte >> 1) & 7] for byte in range(256))


class TextPart(NamedTuple):
    """A text named by its key: the same key is the same text, and a shorter one is its prefix."""

    key: str
    tokens: int


def render_part(part: TextPart) -> bytes:
    """The part's text: ASCII that needs no JSON escapes, `CHARACTERS_PER_TOKEN` a token."""
    digest = hashlib.shake_128(part.key.encode()).digest(part.tokens)
    text = bytearray(b" ") * (part.tokens * CHARACTERS_PER_TOKEN)
    text[0::4] = digest.translate(_ONSETS)
    text[1::4] = digest.translate(_VOWELS)
    text[2::4] = digest.translate(_CODAS)
    return bytes(text)


_render_cached = lru_cache(maxsize=_CACHED_TEXTS)(render_part)
_CACHED_TOKENS = 512


def render(parts: Iterable[TextPart]) -> bytes:
    """The texts of all parts, joined. Texts of up to a trace's block are cached, up to a bound."""
    return b"".join(
        _render_cached(part) if part.tokens <= _CACHED_TOKENS else render_part(part)
        for part in parts
    )


def count_tokens(parts: Iterable[TextPart]) -> int:
    """How many tokens the parts make together."""
    return sum(part.tokens for part in parts)
