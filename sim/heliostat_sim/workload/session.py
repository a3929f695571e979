"""The plan of a workload: sessions of turns, whose texts are named and rendered only when sent."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from heliostat_sim.workload.text import TextPart, count_tokens


class WorkloadError(ValueError):
    """A workload cannot be made from what was asked for."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a session: its user message and how much it makes the engine answer."""

    user: tuple[TextPart, ...]
    output_tokens: int
    think_seconds: float = 0.0
    """From the answer to the turn before until this one is sent."""


@dataclass(frozen=True, slots=True)
class Session:
    """Turns sent one after the other, each with all messages and answers before it."""

    turns: tuple[Turn, ...]
    system: tuple[TextPart, ...] = ()
    """The system message; none where empty."""
    at_seconds: float = 0.0
    """When it starts, from the workload's start; means nothing where the workload is untimed."""

    def prompt_tokens(self, turn: int) -> int:
        """The planned tokens of a turn's prompt, chat template aside (`turn` counts from 0)."""
        earlier = sum(count_tokens(past.user) + past.output_tokens for past in self.turns[:turn])
        return count_tokens(self.system) + earlier + count_tokens(self.turns[turn].user)


@dataclass(frozen=True, slots=True)
class Workload:
    """A deterministic sequence of sessions; iterating again gives the same ones."""

    name: str
    seed: int
    timed: bool
    """Whether sessions say when they start, in ascending order."""
    sessions: Callable[[], Iterator[Session]]
    length: int | None = None
    """How many sessions there are; None if they never end."""
    span_seconds: float | None = None
    """When the last session starts; None if untimed or without end."""

    def __iter__(self) -> Iterator[Session]:
        """A fresh pass over the sessions."""
        return self.sessions()


def with_poisson_arrivals(workload: Workload, sessions_per_second: float) -> Workload:
    """The same sessions, started by a Poisson process seeded with the workload's seed.

    Raises WorkloadError if the rate is not positive.
    """
    if not sessions_per_second > 0:
        raise WorkloadError(f"the rate must be positive, not {sessions_per_second:g} per second")

    def sessions() -> Iterator[Session]:
        rng = random.Random(f"arrivals/{workload.seed}")  # noqa: S311 - reproducible, not secret
        at_seconds = 0.0
        for session in workload:
            at_seconds += rng.expovariate(sessions_per_second)
            yield replace(session, at_seconds=at_seconds)

    return replace(workload, timed=True, sessions=sessions, span_seconds=None)
