"""Tokens without a tokenizer: four bytes each, cut from every text's own start.

A token is four bytes of UTF-8; the last piece of a text is filled with 0xFF and special tokens
begin with 0xFE, two bytes that UTF-8 never uses. A prompt is thus one bytes object, a block a slice
of it, and a block's hash one call of xxh3 seeded with the hash before: a prompt of 500 KB is
hashed in milliseconds. Generated tokens are whole four-character pieces, so a reply that comes
back as an assistant message is cut into the very tokens that were generated.
"""

from array import array
from collections.abc import Iterable, Sequence

from xxhash import xxh3_64_intdigest, xxh3_128_digest

from heliostat_sim.engine.generation import TOKEN_BYTES, output_bytes

_START_OF_TURN = b"\xfe\x00\x00\x01"
_END_OF_TURN = b"\xfe\x00\x00\x02"
_TOOLS = b"\xfe\x00\x00\x03"
_MEDIA = b"\xfe\x00\x00\x04"
_MEDIA_TOKENS = 256
_GENERATION_ROLE = "assistant"
_ID_TYPECODE = "I"


def text_tokens(text: str | bytes) -> bytes:
    """Return a text's tokens."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return data + b"\xff" * (-len(data) % TOKEN_BYTES)


def chat_tokens(
    tools_json: bytes | None,
    messages: Iterable[tuple[str, Sequence[str | bytes]]],
    *,
    generate: bool = True,
) -> bytes:
    """Return a conversation's tokens: tools, then (role, texts) of every message."""
    parts = [] if tools_json is None else [_TOOLS, text_tokens(tools_json), _END_OF_TURN]
    for role, texts in messages:
        parts += [_START_OF_TURN, text_tokens(role)]
        parts += map(text_tokens, texts)
        parts.append(_END_OF_TURN)
    if generate:
        parts += [_START_OF_TURN, text_tokens(_GENERATION_ROLE)]
    return b"".join(parts)


def media_tokens(content: bytes) -> bytes:
    """Return what stands for an image or sound: as many tokens for any, and others for others."""
    digest = xxh3_128_digest(content)
    return _MEDIA + digest * (_MEDIA_TOKENS * TOKEN_BYTES // len(digest))


def tokens_of_ids(ids: Sequence[int]) -> bytes:
    """Return the tokens of a list of ids. Raises OverflowError beyond 32 bits or below 0."""
    return array(_ID_TYPECODE, ids).tobytes()


def text_of_ids(ids: Sequence[int]) -> str:
    """Return the text of a list of ids. Raises OverflowError beyond 32 bits or below 0."""
    return tokens_of_ids(ids).translate(None, b"\xfe\xff\x00").decode(errors="replace")


def ids_of_tokens(tokens: bytes) -> list[int]:
    """Return the ids that stand for tokens."""
    return array(_ID_TYPECODE, tokens).tolist()


class TokenBlocks:
    """Block hashes of a prompt and of the output that follows from it."""

    def __init__(self, prompt: bytes, block_tokens: int, salt: str | None = None) -> None:
        self.prompt_tokens = len(prompt) // TOKEN_BYTES
        self._block_tokens = block_tokens
        block_bytes = block_tokens * TOKEN_BYTES
        full_bytes = len(prompt) - len(prompt) % block_bytes
        view = memoryview(prompt)
        block_hash = xxh3_64_intdigest(salt.encode("utf-8", "surrogatepass")) if salt else 0
        self._root_hash = block_hash
        hashes = []
        for start in range(0, full_bytes, block_bytes):
            block_hash = xxh3_64_intdigest(view[start : start + block_bytes], block_hash)
            hashes.append(block_hash)
        self._hashes = hashes
        self._tail = prompt[full_bytes:]
        self.seed = xxh3_64_intdigest(self._tail, block_hash)

    def output(self, start_token: int, end_token: int) -> bytes:
        """Return the text of output tokens [start_token, end_token)."""
        return output_bytes(self.seed, start_token, end_token)

    def between(self, start: int, end: int) -> list[int]:
        """Return the hashes of blocks [start, end)."""
        while len(self._hashes) < end:
            self._append_hash()
        return self._hashes[start:end]

    def _append_hash(self) -> None:
        """Hash the next block, which ends in the output."""
        start = len(self._hashes) * self._block_tokens - self.prompt_tokens
        end = start + self._block_tokens
        data = self.output(start, end) if start >= 0 else self._tail + self.output(0, end)
        self._hashes.append(
            xxh3_64_intdigest(data, self._hashes[-1] if self._hashes else self._root_hash)
        )
