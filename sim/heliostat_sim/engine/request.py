"""A request as the engine sees it, and the state the engine keeps of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class FinishReason(StrEnum):
    """Why a request ended, in vLLM's words."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


class BlockHashes(Protocol):
    """Chained hashes of a request's token blocks: equal hashes mean equal tokens up to there.

    The blocks run over the prompt and on into the output; the engine asks for full blocks only.
    """

    def between(self, start: int, end: int) -> Sequence[int]:
        """Return the hashes of blocks [start, end); block i's covers all tokens up to its end."""
        ...


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What a caller submits. The output's length is decided by the caller, not by the engine."""

    id: int
    prompt_tokens: int
    output_tokens: int
    block_hashes: BlockHashes
    finish_reason: FinishReason = FinishReason.LENGTH


@dataclass(slots=True, eq=False)
class SequenceState:
    """The engine's state of one unfinished request.

    While it decodes, `computed_tokens` and `output_tokens` stand still at their values of
    `joined_step`; the decode group's step counter carries them on.
    """

    request: EngineRequest
    arrived_at: float
    admitted_at: float | None = None
    first_token_at: float | None = None
    cached_tokens: int = 0
    stored_blocks: int = 0
    computed_tokens: int = 0
    output_tokens: int = 0
    held_hashes: list[int] = field(default_factory=list)
    registered_blocks: int = 0
    joined_step: int | None = None
    join_number: int = 0

    @property
    def target_tokens(self) -> int:
        """Tokens to compute before the next output token: the prompt and all output so far."""
        return self.request.prompt_tokens + self.output_tokens
