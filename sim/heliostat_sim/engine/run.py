"""A run of steps with one batch: their ends have a closed form, so they need no loop."""

from bisect import bisect_right
from dataclasses import dataclass


@dataclass(slots=True)
class Run:
    """`steps` consecutive steps; each lasts `growth_seconds` longer than the one before."""

    started_at: float
    steps: int
    first_seconds: float
    growth_seconds: float
    done: int = 0

    def end_of(self, steps: int) -> float:
        """Return the instant at which that many steps have ended."""
        growth = self.growth_seconds * (steps * (steps - 1) / 2)
        return self.started_at + steps * self.first_seconds + growth

    def completed_by(self, now: float) -> int:
        """Return how many steps have ended at `now`."""
        if self.end_of(self.done + 1) > now:
            return self.done
        if self.end_of(self.steps) <= now:
            return self.steps
        return bisect_right(range(self.steps + 1), now, lo=self.done + 1, key=self.end_of) - 1

    def cut(self) -> None:
        """End the run with the step in progress, because the batch changes after it."""
        self.steps = self.done + 1
