"""What the demo runs: engines and chats between which the choice of an endpoint matters.

Engines: Llama-3.1-8B on an L4, twice as fast, so that 20 seconds hold 200 to 250 requests. Each
has the 28,000 tokens of KV that the real one has.

Chats: users of twelve applications, each with a system prompt of 1,500 tokens, write short messages
and get short answers, five turns on average; the mean prompt has 2,400 tokens. The system prompts
(18,000 tokens together) and the 24 chats under way fit the four caches together, but not one alone:
a policy that spreads a chat over all engines has each compute it anew, and crowds out other chats.
The first chats begin over 3 seconds, as users do, rather than all at once on empty caches.

Load: 24 chats at once make 300 to 500 tokens/s, which two cores bear with engines, Envoy, router
and load on them (event loops of load and engines lag 1 to 3 ms at the 99th percentile).

The numbers are of the kind, not of the seed: seeds 0 to 3 gave hit ratios of 0.61 to 0.65 with
round robin and of 0.87 to 0.89 with Heliostat; one cache without bounds would give 0.90 to 0.92.
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
    """Agent-like chats: a long shared prompt, short turns."""
    return ConversationSettings(
        groups=12,
        users=48,
        system_tokens=1500,
        profile_tokens=60,
        mean_turns=5.0,
        single_turn_ratio=0.2,
        user_tokens=LengthDistribution(150, 100, 800),
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
    """Over which the first chats begin, in runs of 15 seconds and more."""
    ramp_ratio: float = 0.2
    """The same for shorter runs, as a share of the run."""
    timeout_seconds: float = 30.0
    """How long one request may take."""

    def engine_arguments(self) -> list[str]:
        """The command line of the engines, without the program."""
        return [
            *("engine", "--port", "0", "--count", str(self.engines), "--model", MODEL),
            *("--profile", self.profile, "--speed", f"{self.speed_ratio:g}"),
            *("--kv-tokens", str(self.kv_tokens)),
        ]

    def workload(self, seed: int, seconds: float) -> Workload:
        """The chats of a run: the same for the same seed, the first ones one after the other."""
        plain = conversations(self.chats, seed)
        ramp_seconds = min(self.ramp_seconds, self.ramp_ratio * seconds)

        def sessions() -> Iterator[Session]:
            for number, session in enumerate(plain):
                if number < self.concurrency:
                    yield _delayed(session, ramp_seconds * number / self.concurrency)
                else:
                    yield session

        return replace(plain, sessions=sessions)


def _delayed(session: Session, seconds: float) -> Session:
    first, *later = session.turns
    return replace(session, turns=(replace(first, think_seconds=seconds), *later))


SCENARIO = Scenario()
