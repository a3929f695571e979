"""One request of the simulated world, from the client that sends it to its last token."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from heliostat_sim.world.chain import TokenChain


class Ending(StrEnum):
    """How a request ended, as its client sees it."""

    SERVED = "served"
    REJECTED = "rejected"
    """Turned away at the door of a gateway."""
    EXPIRED = "expired"
    """Given up by a gateway after its deadline."""
    BROKEN = "broken"
    """The stream was cut after the response headers: an engine, gateway, link or region died."""


@dataclass(slots=True, eq=False)
class Request:
    """What a client asks, where the request is now, and what became of it. Instants in seconds."""

    id: int
    region: str
    """Where its client is."""
    user: int
    """Who asks: what sticky policies hash."""
    chain: TokenChain
    """The tokens of prompt and answer, as hashes."""
    prompt_tokens: int
    output_tokens: int
    """The length that the answer will have: known to engines and clairvoyants only."""
    max_output_tokens: int | None
    source: Any
    """The client that waits for the answer."""
    sent_at: float
    attempts: int = 0
    """How often the client has sent it again after a broken stream."""
    ingress: Any = None
    """The gateway that the client asked."""
    gateway: Any = None
    """The gateway that places it: the ingress, or the peer it was forwarded to."""
    forwarded: bool = False
    """Whether it has been to another region's gateway: it may not go any further."""
    hold_seconds: float | None = None
    """How long the peer that it was forwarded to may hold it."""
    engine: Any = None
    """The engine that has it."""
    dispatched_at: float | None = None
    """When it was last sent to an engine."""
    upstream_token_at: float | None = None
    """When the gateway that placed it had the first token."""
    first_token_at: float | None = None
    """When the client had the first token."""
    ended_at: float | None = None
    """When the client had the last token, or the error."""
    cached_tokens: int = 0
    ending: Ending | None = None
