"""Why a request went where it went, as data: kept as it was scored, rendered when it is read.

Every decision has an explanation and few are read: no decision pays for showing its candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


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

    `burden_seconds` is what the requests in flight there pay, `spread_seconds` what an endpoint
    pays for being the only, and crowded, holder of a prefix, `egress_seconds` what the way to
    another region costs.
    """

    endpoint: str
    cached_tokens: float
    uncached_tokens: float
    wait_seconds: float
    prefill_seconds: float
    network_seconds: float
    burden_seconds: float
    spread_seconds: float
    cost_seconds: float
    egress_seconds: float = 0.0


class Explicable(Protocol):
    """What was scored, and can say so as a candidate."""

    def candidate(self) -> Candidate:
        """The terms of its cost."""
        ...


class _Candidates:
    """A field that is given what was scored, and reads as candidates."""

    def __get__(self, explanation: object, owner: type | None = None) -> tuple[Candidate, ...]:
        scored: Sequence[Explicable] = getattr(explanation, "_scored", ())
        return tuple(s.candidate() for s in scored)

    def __set__(self, explanation: "Explanation", scored: Sequence[Explicable]) -> None:
        object.__setattr__(explanation, "_scored", scored)


@dataclass(frozen=True)
class Explanation:
    """One decision: the candidates in order of cost, and the rule that chose.

    `eligible` counts the endpoints that could have been candidates.
    """

    policy: str
    rule: str
    winner: str | None
    eligible: int
    candidates: _Candidates = _Candidates()

    def verdict(self, candidate: Candidate) -> Verdict:
        """Say why this candidate won or lost."""
        if candidate.endpoint == self.winner:
            return Verdict.WON
        winning = next((c for c in self.candidates if c.endpoint == self.winner), None)
        if winning is not None and candidate.cost_seconds > winning.cost_seconds:
            return Verdict.COSTLIER
        if winning is not None and candidate.cost_seconds == winning.cost_seconds:
            return Verdict.ALIKE
        return Verdict.BUSY if candidate.wait_seconds > 0 else Verdict.ALIKE
