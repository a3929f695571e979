"""What one router can tell another of all that it has learned, in a few sums.

The models weigh each sample the less, the longer ago it was taken, so a model's weight says how
much it has learned. A router that comes late takes over what has learned more than its own.
"""

from dataclasses import dataclass

GREATEST = 1e15
"""Of any sum: far beyond what seconds, tokens and loads come to, and safe to multiply."""
ROUNDING_RATIO = 1e-6


@dataclass(frozen=True, slots=True)
class LineSamples:
    """Sums over weighted samples (x, y), to which a line is fitted."""

    weight: float
    x: float
    y: float
    xx: float
    xy: float

    def can_be(self, memory: float) -> bool:
        """Whether there are samples with these sums; each keeps `memory` of its weight."""
        sane = all(0 <= total <= GREATEST for total in (self.x, self.y, self.xx, self.xy))
        rounding = 1 + ROUNDING_RATIO
        return (
            sane
            and 0 < self.weight * (1 - memory) <= rounding
            and self.x * self.x <= self.xx * self.weight * rounding
        )


@dataclass(frozen=True, slots=True)
class TokenSamples:
    """Sums over the prompts, and running means of the answers."""

    weight: float
    prompt_bytes: float
    prompt_tokens: float
    mean_output_tokens: float
    mean_duration_seconds: float
