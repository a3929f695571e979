"""Requests and clocks for tests of the engine model."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from heliostat_sim.engine import (
    PROFILES,
    Engine,
    EngineEvent,
    EngineProfile,
    EngineRequest,
    Finished,
)

BLOCK_TOKENS = 4


class TokenBlocks:
    """Block hashes of literal prompt tokens, the output following from the prompt."""

    def __init__(self, prompt: Sequence[int], block_tokens: int = BLOCK_TOKENS) -> None:
        self.prompt = tuple(prompt)
        self._block_tokens = block_tokens

    def tokens(self, count: int) -> tuple[int, ...]:
        """Return the first tokens of prompt and output."""
        output = (hash((self.prompt, index)) for index in range(count - len(self.prompt)))
        return (self.prompt + tuple(output))[:count]

    def between(self, start: int, end: int) -> list[int]:
        """Return the hashes of blocks [start, end)."""
        return [hash(self.tokens((i + 1) * self._block_tokens)) for i in range(start, end)]


def request(number: int, prompt: Sequence[int], output_tokens: int = 1) -> EngineRequest:
    """Return a request over literal tokens."""
    return EngineRequest(number, len(prompt), output_tokens, TokenBlocks(prompt))


def profile(**changes: float | int | None) -> EngineProfile:
    """Return a small engine: blocks of 4 tokens, 64 tokens of KV cache unless changed."""
    small: dict[str, float | int | None] = {"kv_tokens": 64, "block_tokens": BLOCK_TOKENS}
    return replace(PROFILES["l4-llama-8b"], **{**small, **changes})  # type: ignore[arg-type]


def events_until_idle(engine: Engine) -> Iterator[EngineEvent]:
    """Advance from event to event until nothing is left to do."""
    while (at := engine.next_event_at()) is not None:
        yield from engine.advance(at)


def finished(engine: Engine) -> dict[int, Finished]:
    """Run the engine until it is idle; return how each request ended."""
    return {e.request_id: e for e in events_until_idle(engine) if isinstance(e, Finished)}
