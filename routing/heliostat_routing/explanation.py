"""Why a request went where it went, as data: built with the decision, read on demand."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What became of a candidate."""

    WON = "won"
    COSTLIER = "costlier"
    BUSY = "busy"
    """It would have won on cost alone but cannot take the request yet."""
    ALIKE = "alike"
    """It costs as good as the same; the winner holds more of the prompt or carries less."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One endpoint that was scored; all terms in seconds, `cost_seconds` their sum.

    `spread_seconds` is what an endpoint pays for being the only, and crowded, holder of a prefix.
    """

    endpoint: str
    cached_tokens: float
    uncached_tokens: float
    wait_seconds: float
    prefill_seconds: float
    network_seconds: float
    spread_seconds: float
    cost_seconds: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """One decision: the candidates in order of cost, and the rule that chose.

    `eligible` counts the endpoints that could have been candidates.
    """

    policy: str
    rule: str
    winner: str | None
    eligible: int
    candidates: tuple[Candidate, ...] = ()

    def verdict(self, candidate: Candidate) -> Verdict:
        """Say why this candidate won or lost."""
        if candidate.endpoint == self.winner:
            return Verdict.WON
        winning = next((c for c in self.candidates if c.endpoint == self.winner), None)
        if winning is not None and candidate.cost_seconds >= winning.cost_seconds:
            return Verdict.COSTLIER
        return Verdict.BUSY if candidate.wait_seconds > 0 else Verdict.ALIKE
