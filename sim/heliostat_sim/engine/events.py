"""What an engine reports: facts with the instant at which they became true."""

from dataclasses import dataclass

from heliostat_sim.engine.request import FinishReason


@dataclass(frozen=True, slots=True)
class FirstToken:
    """The request's prompt is computed and its first output token exists."""

    request_id: int
    at: float
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Preempted:
    """The request lost its KV blocks and waits again, ahead of all others."""

    request_id: int
    at: float


@dataclass(frozen=True, slots=True)
class Finished:
    """The request has all its output tokens; the instants part queue, prefill and decode.

    stored_tokens: of the prompt, those in full blocks that no block held before.
    """

    request_id: int
    at: float
    reason: FinishReason
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    stored_tokens: int
    arrived_at: float
    admitted_at: float
    first_token_at: float


EngineEvent = FirstToken | Preempted | Finished
