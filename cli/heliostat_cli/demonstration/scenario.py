"""What the demo runs: engines whose caches matter, and chats that would like to be remembered.

draft
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from heliostat_sim.workload.conversations import (
    ConversationSettings,
    LengthDistribution,
    conversations,
)
from heliostat_sim.workload.session import Session, Workload

MODEL = "meta-llama/Llama-3.1-8B-Instruct"


def _chats() -> ConversationSettings:
    return ConversationSettings(
        groups=8,
        users=48,
        system_tokens=1200,
        profile_tokens=60,
        mean_turns=5.0,
        single_turn_ratio=0.2,
        user_tokens=LengthDistribution(120, 80, 600),
        output_tokens=LengthDistribution(40, 25, 160),
        think_seconds=0.4,
        max_context_tokens=6000,
    )


@dataclass(frozen=True, slots=True)
class Scenario:
    """Engines and chats."""

    engines: int = 4
    profile: str = "l4-llama-8b"
    speed_ratio: float = 2.0
    """How many times as fast as the profile's hardware."""
    kv_tokens: int = 28_000
    """KV capacity of one engine."""
    chats: ConversationSettings = field(default_factory=_chats)
    concurrency: int = 24
    """Chats held at once."""
    ramp_seconds: float = 3.0
    """Over which the first chats begin."""
    timeout_seconds: float = 30.0
    """How long one request may take."""

    def engine_arguments(self) -> list[str]:
        """The command line of the engines, without the program."""
        return [
            *("engine", "--port", "0", "--count", str(self.engines), "--model", MODEL),
            *("--profile", self.profile, "--speed", f"{self.speed_ratio:g}"),
            *("--kv-tokens", str(self.kv_tokens)),
        ]

    def workload(self, seed: int) -> Workload:
        """The same chats for the same seed; the first ones begin one after the other."""
        plain = conversations(self.chats, seed)

        def sessions() -> Iterator[Session]:
            for number, session in enumerate(plain):
                if number < self.concurrency:
                    yield _delayed(session, self.ramp_seconds * number / self.concurrency)
                else:
                    yield session

        return replace(plain, sessions=sessions)


def _delayed(session: Session, seconds: float) -> Session:
    first, *later = session.turns
    return replace(session, turns=(replace(first, think_seconds=seconds), *later))


SCENARIO = Scenario()
