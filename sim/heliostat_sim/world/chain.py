"""A text as the simulator knows it: a chain of block hashes, which grows and is never rendered.

Equal hashes mean equal tokens up to there, as in an engine's prefix cache. A conversation's turns
share one chain: each prompt is a longer piece of it, so that no block is hashed twice.
"""

from collections.abc import Iterable, Sequence

from xxhash import xxh3_64_intdigest

from heliostat_sim.workload.text import TextPart

Piece = tuple[int, int, int]
"""Part of a text: (the text's name, its first token, one past its last)."""


class TokenChain:
    """The hashes of the full blocks of a text made of named parts."""

    __slots__ = ("_open", "_parent", "block_tokens", "hashes", "tokens")

    def __init__(self, block_tokens: int = 16) -> None:
        self.block_tokens = block_tokens
        self.tokens = 0
        self.hashes: list[int] = []
        """One for each full block; block i's covers all tokens up to its end."""
        self._parent = 0
        self._open: tuple[Piece, ...] = ()

    def fork(self) -> "TokenChain":
        """A copy that goes on by itself."""
        copy = TokenChain(self.block_tokens)
        copy.tokens, copy.hashes = self.tokens, self.hashes.copy()
        copy._parent, copy._open = self._parent, self._open
        return copy

    def extend(self, parts: Iterable[TextPart]) -> None:
        """Add texts at the end. The same key is the same text, a shorter one its prefix."""
        for part in parts:
            self.add(xxh3_64_intdigest(part.key.encode()), part.tokens)

    def add(self, name: int, tokens: int) -> None:
        """Add the first tokens of the text with this name."""
        block, parent, hashes = self.block_tokens, self._parent, self.hashes
        start = 0
        room = -self.tokens % block
        if room:
            start = min(room, tokens)
            self._open = (*self._open, (name, 0, start))
            if start == room:
                parent = hash((parent, self._open))
                hashes.append(parent)
                self._open = ()
        full = start + (tokens - start) // block * block
        for at in range(start, full, block):
            parent = hash((parent, name, at))
            hashes.append(parent)
        if full < tokens:
            self._open = ((name, full, tokens),)
        self._parent = parent
        self.tokens += tokens

    def between(self, start: int, end: int) -> Sequence[int]:
        """The hashes of blocks [start, end)."""
        return self.hashes[start:end]

    def keys(self, prompt_tokens: int, blocks_per_key: int) -> tuple[int, ...]:
        """The hashes of every so many blocks of a prompt: what a router knows of it."""
        full = prompt_tokens // self.block_tokens
        return tuple(self.hashes[blocks_per_key - 1 : full : blocks_per_key])
