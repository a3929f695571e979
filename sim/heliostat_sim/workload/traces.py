"""What all trace readers share: the window of a trace that is used, and errors that name a line."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from heliostat_sim.workload.session import Session, Workload, WorkloadError


class TraceError(WorkloadError):
    """A trace cannot be read; the message names the file, the line and what is wrong with it."""

    @classmethod
    def at_line(cls, path: Path, line_number: int, problem: object) -> "TraceError":
        """The error for one line, counted from 1."""
        return cls(f"{path}:{line_number}: {problem}")


@dataclass(frozen=True, slots=True)
class TraceWindow:
    """Which part of a trace is used, and how fast."""

    start_seconds: float = 0.0
    """Where in the trace to begin, in the trace's own seconds."""
    duration_seconds: float | None = None
    """How much of the trace to use, in the trace's own seconds; None: to its end."""
    time_scale: float = 1.0
    """How many seconds of the trace pass in one second."""

    def __post_init__(self) -> None:
        if not self.time_scale > 0:
            raise WorkloadError(f"the time scale must be positive, not {self.time_scale:g}")
        if self.start_seconds < 0:
            raise WorkloadError("the start of the trace's window cannot be negative")
        if self.duration_seconds is not None and not self.duration_seconds > 0:
            raise WorkloadError("the duration of the trace's window must be positive")

    def holds(self, at_seconds: float) -> bool:
        """Whether a request at this time of the trace is used."""
        passed = at_seconds - self.start_seconds
        return passed >= 0 and (self.duration_seconds is None or passed < self.duration_seconds)

    def scaled_seconds(self, at_seconds: float) -> float:
        """When a request at this time of the trace is sent, from the workload's start."""
        return (at_seconds - self.start_seconds) / self.time_scale


class TraceRow(Protocol):
    """A line of a trace."""

    @property
    def at_seconds(self) -> float:
        """When it arrived, from the trace's start."""


Row = TypeVar("Row", bound=TraceRow)


def trace_workload(
    name: str,
    seed: int,
    rows: Sequence[Row],
    window: TraceWindow,
    session: Callable[[Row], Session],
) -> Workload:
    """The rows inside the window as timed sessions. Raises TraceError if there are none."""
    used = sorted((row for row in rows if window.holds(row.at_seconds)), key=_arrival)
    if not used:
        raise TraceError(f"the trace has {len(rows)} requests, but none in the chosen window")

    def sessions() -> Iterator[Session]:
        return (session(row) for row in used)

    return Workload(
        name=name,
        seed=seed,
        timed=True,
        sessions=sessions,
        length=len(used),
        span_seconds=window.scaled_seconds(used[-1].at_seconds),
    )


def _arrival(row: TraceRow) -> float:
    return row.at_seconds
