"""From values to places on an axis, and the round numbers that mark it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis shows."""

    label: str
    """With the unit in brackets."""
    logarithmic: bool = False
    """Values that are not positive are not drawn."""
    least: float | None = None
    """Where it begins; of the data if None."""
    greatest: float | None = None


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values between two bounds to places between two pixels."""

    low: float
    high: float
    start: float
    """The pixel of the lower bound."""
    end: float
    logarithmic: bool
    ticks: tuple[float, ...]

    def shows(self, value: float) -> bool:
        """Whether the value has a place at all."""
        return math.isfinite(value) and (value > 0 or not self.logarithmic)

    def place(self, value: float) -> float:
        """The pixel of a value; one beyond the bounds is drawn at the bound."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def make_scale(axis: Axis, values: Iterable[float], start: float, end: float) -> Scale:
    """A scale that holds all values, its bounds on round numbers where the axis sets none."""
    known = [v for v in values if math.isfinite(v) and (v > 0 or not axis.logarithmic)]
    low = axis.least if axis.least is not None else min(known, default=1.0)
    high = axis.greatest if axis.greatest is not None else max(known, default=low + 1.0)
    if high <= low:
        high = low * 2 if low > 0 else low + 1.0
    ticks = _log_ticks(low, high) if axis.logarithmic else _linear_ticks(low, high)
    if axis.least is None:
        low = min(low, ticks[0])
    if axis.greatest is None:
        high = max(high, ticks[-1])
    shown = tuple(tick for tick in ticks if low <= tick <= high)
    return Scale(low, high, start, end, axis.logarithmic, shown)


def tick_text(value: float) -> str:
    """A tick in as few characters as tell it."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _linear_ticks(low: float, high: float) -> Sequence[float]:
    """Five or so multiples of a round step, from at most `low` to at least `high`."""
    rough = (high - low) / 5
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(s * magnitude for s in _STEPS if s * magnitude >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> Sequence[float]:
    """Powers of ten, with 2 and 5 between them where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    parts = (1.0, 2.0, 5.0) if high / low < 1000 else (1.0,)
    ticks = [round(p * 10.0**power, 12) for power in range(first, last + 1) for p in parts]
    below = max((tick for tick in ticks if tick <= low), default=ticks[0])
    above = min((tick for tick in ticks if tick >= high), default=ticks[-1])
    return [tick for tick in ticks if below <= tick <= above]
