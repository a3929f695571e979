"""What the world asks for: sessions that yield requests, and who runs them where and when."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from heliostat_sim.world.chain import TokenChain


class Ask(NamedTuple):
    """A request that a session wants sent now, after a think time."""

    chain: TokenChain
    """Prompt and answer; it must hold the blocks of both and may grow later."""
    prompt_tokens: int
    output_tokens: int
    think_seconds: float = 0.0
    position: int = 0
    """Which of the session's requests it is: the session's own affair."""
    max_output_tokens: int | None = None


class Session(Protocol):
    """A program of requests, each answered before those that build on it are known."""

    @property
    def user(self) -> int:
        """Who runs it: what sticky policies hash."""

    def start(self) -> list[Ask]:
        """The first requests."""

    def on_answer(self, ask: Ask) -> list[Ask]:
        """The requests that this answer leads to. With none and none open the session is over."""


@dataclass(frozen=True, slots=True)
class ClosedClient:
    """A client that runs one session after the other, without end."""

    region: str
    sessions: Iterator[Session]
    starts_at: float = 0.0
    stops_at: float | None = None
    """From then on it starts no other session, and sends no further request."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A session that begins at its own time, whatever the system does."""

    at: float
    region: str
    session: Session


@dataclass(frozen=True, slots=True)
class Demand:
    """All that is asked: closed-loop clients, and open-loop arrivals in ascending order."""

    closed: tuple[ClosedClient, ...] = ()
    arrivals: Iterator[Arrival] = field(default_factory=lambda: iter(()))
