"""Synthetic multi-turn chats: groups share a system prompt, users share their own context."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from heliostat_sim.workload.session import Session, Turn, Workload, WorkloadError
from heliostat_sim.workload.text import TextPart


@dataclass(frozen=True, slots=True)
class LengthDistribution:
    """A lognormal length in tokens, cut to 1..max_tokens (which lowers the mean a little)."""

    mean_tokens: float
    deviation_tokens: float
    """The standard deviation; 0 makes every length the mean."""
    max_tokens: int

    def __post_init__(self) -> None:
        if not (self.mean_tokens >= 1 and self.deviation_tokens >= 0 and self.max_tokens >= 1):
            raise WorkloadError(
                "lengths need a mean and a maximum of at least 1 token, and a deviation"
            )

    def draw_tokens(self, rng: random.Random) -> int:
        """One length, at least 1 token."""
        variance = math.log1p((self.deviation_tokens / self.mean_tokens) ** 2)
        drawn = rng.lognormvariate(math.log(self.mean_tokens) - variance / 2, math.sqrt(variance))
        return max(1, min(self.max_tokens, round(drawn)))


@dataclass(frozen=True, slots=True)
class ConversationSettings:
    """The shape of the chats. Turns follow WildChat: mean 2.54, 59 % of chats with one turn."""

    groups: int = 8
    """Applications: their users share a system prompt."""
    users: int = 64
    """People; each belongs to one group. Chats draw them at random, so one may hold several."""
    system_tokens: int = 600
    """The system prompt that a group shares."""
    profile_tokens: int = 100
    """What the system message adds about the user, the same in all of a user's chats."""
    mean_turns: float = 2.54
    single_turn_ratio: float = 0.59
    """The share of chats with one turn; the others are 2 plus a geometric number."""
    user_tokens: LengthDistribution = field(
        default_factory=lambda: LengthDistribution(200, 300, 4000)
    )
    output_tokens: LengthDistribution = field(
        default_factory=lambda: LengthDistribution(120, 100, 2000)
    )
    think_seconds: float = 1.0
    """Mean of the exponential time between an answer and the user's next message."""
    max_context_tokens: int = 16_000
    """A chat ends before a prompt and its answer would exceed this."""

    def __post_init__(self) -> None:
        if self.groups < 1 or self.users < self.groups:
            raise WorkloadError("there must be at least one group, and a user for each group")
        if self.system_tokens < 0 or self.profile_tokens < 0 or self.think_seconds < 0:
            raise WorkloadError("prompt lengths and think times cannot be negative")
        if not 0 <= self.single_turn_ratio <= 1:
            raise WorkloadError("the share of chats with one turn must be between 0 and 1")
        if self.single_turn_ratio < 1 and self._mean_later_turns < 2:
            least = 2 - self.single_turn_ratio
            raise WorkloadError(
                f"with {self.single_turn_ratio:.0%} of chats having one turn, the mean is at least"
                f" {least:.2f} turns, not {self.mean_turns:g}"
            )

    @property
    def _mean_later_turns(self) -> float:
        """The mean turns of a chat that has more than one."""
        return (self.mean_turns - self.single_turn_ratio) / (1 - self.single_turn_ratio)

    def draw_turns(self, rng: random.Random) -> int:
        """The turns of one chat."""
        if rng.random() < self.single_turn_ratio:
            return 1
        excess = self._mean_later_turns - 2
        if excess <= 1e-9:
            return 2
        stay = excess / (1 + excess)
        return 2 + int(math.log(1.0 - rng.random()) / math.log(stay))


def conversations(settings: ConversationSettings, seed: int) -> Workload:
    """Chats without end, untimed: their clients send the next turn when they have the answer."""
    return Workload(
        name="conversations",
        seed=seed,
        timed=False,
        sessions=lambda: _sessions(settings, seed),
    )


def _sessions(settings: ConversationSettings, seed: int) -> Iterator[Session]:
    rng = random.Random(f"conversations/{seed}")  # noqa: S311 - reproducible, not secret
    number = 0
    while True:
        yield _session(settings, f"{seed}/conversation/{number}", seed, rng)
        number += 1


def _session(settings: ConversationSettings, key: str, seed: int, rng: random.Random) -> Session:
    user = rng.randrange(settings.users)
    group = user % settings.groups
    system = (
        TextPart(f"{seed}/group/{group}", settings.system_tokens),
        TextPart(f"{seed}/user/{user}", settings.profile_tokens),
    )
    context_tokens = settings.system_tokens + settings.profile_tokens
    turns: list[Turn] = []
    for index in range(settings.draw_turns(rng)):
        user_tokens = settings.user_tokens.draw_tokens(rng)
        output_tokens = settings.output_tokens.draw_tokens(rng)
        think_seconds = rng.expovariate(1.0) * settings.think_seconds
        context_tokens += user_tokens + output_tokens
        if turns and context_tokens > settings.max_context_tokens:
            break
        message = (TextPart(f"{key}/{index}", user_tokens),)
        turns.append(Turn(message, output_tokens, think_seconds if turns else 0.0))
    return Session(turns=tuple(turns), system=tuple(part for part in system if part.tokens))
