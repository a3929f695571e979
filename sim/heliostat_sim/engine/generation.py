"""What a model without weights says: a length and a text that follow from the prompt alone.

The same prompt gets the same answer on every engine, so a retry elsewhere, a preemption or a
comparison of replicas sees equal text.
"""

import math
from functools import cache

TOKEN_BYTES = 4
"""Every output token is four ASCII characters: three letters and a space."""

MEAN_OUTPUT_TOKENS = 200
"""Mean length of an answer that ends by itself."""

_LETTERS = (
    "thesunandskydaywasoneseafarnewlowredherhisairouroutmayseesaywaywhodidgetlettoouseoldmantwo"
    "howitsnowanyfewgothashimsetruntopputendwhytryaskmenownlotsixtencutmapartkeyactaddageagoaim"
    "bedbigbitboxboybusbuycarcup"
)
_WORDS = [_LETTERS[at : at + 3] for at in range(0, len(_LETTERS), 3)]
_CORPUS_TOKENS = 1 << 16


def natural_output_tokens(seed: int) -> int:
    """Return the length at which an answer ends by itself: exponential, at least one token."""
    uniform = ((seed * 0x9E3779B97F4A7C15 >> 11) % (1 << 53) + 0.5) / (1 << 53)
    return math.ceil(-math.log(uniform) * MEAN_OUTPUT_TOKENS)


def output_bytes(seed: int, start_token: int, end_token: int) -> bytes:
    """Return the text of output tokens [start_token, end_token), as ASCII."""
    corpus = _corpus()
    first = (seed + start_token) % _CORPUS_TOKENS
    count = end_token - start_token
    if first + count <= _CORPUS_TOKENS:
        return corpus[first * TOKEN_BYTES : (first + count) * TOKEN_BYTES]
    return b"".join(
        corpus[at * TOKEN_BYTES : (at + 1) * TOKEN_BYTES]
        for at in ((first + offset) % _CORPUS_TOKENS for offset in range(count))
    )


def warm_up() -> None:
    """Prepare the text now (tens of milliseconds), so that the first answer need not."""
    _corpus()


@cache
def _corpus() -> bytes:
    """Return a long text of known words in an order without short cycles."""
    words = [f"{word} ".encode() for word in _WORDS]
    state, pieces = 1, []
    for _ in range(_CORPUS_TOKENS):
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        pieces.append(words[(state >> 33) % len(words)])
    return b"".join(pieces)
