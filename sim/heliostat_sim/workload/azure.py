"""Azure LLM inference traces: times and lengths only, so no prompt shares text with another."""

import csv
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from heliostat_sim.workload.session import Session, Turn, Workload, WorkloadError
from heliostat_sim.workload.text import TextPart
from heliostat_sim.workload.traces import TraceError, TraceWindow, trace_workload

_COLUMNS = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]


@dataclass(frozen=True, slots=True)
class AzureRow:
    """One line of the trace."""

    number: int
    """The line's place among the requests, from 0."""
    at_seconds: float
    """From the trace's first line."""
    input_tokens: int
    output_tokens: int


def read_azure(path: Path) -> list[AzureRow]:
    """All lines of an Azure trace. Raises TraceError."""
    rows: list[AzureRow] = []
    first: datetime | None = None
    try:
        with path.open(newline="", encoding="utf-8-sig") as text:
            lines = csv.reader(text)
            header = next(lines, [])
            if header != _COLUMNS:
                raise TraceError.at_line(path, 1, f"the columns must be {','.join(_COLUMNS)}")
            for line in lines:
                if not line:
                    continue
                try:
                    at, input_tokens, output_tokens = _parse_line(line)
                    first = first or at
                    at_seconds = (at - first).total_seconds()
                except (TypeError, ValueError) as error:
                    raise TraceError.at_line(path, lines.line_num, error) from error
                rows.append(AzureRow(len(rows), at_seconds, input_tokens, output_tokens))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path}: {error}") from error
    return rows


def _parse_line(line: list[str]) -> tuple[datetime, int, int]:
    if len(line) != len(_COLUMNS):
        raise ValueError(f"{len(_COLUMNS)} fields expected, {len(line)} found")
    at, input_tokens, output_tokens = datetime.fromisoformat(line[0]), int(line[1]), int(line[2])
    if input_tokens < 1 or output_tokens < 1:
        raise ValueError("token counts must be at least 1")
    return at, input_tokens, output_tokens


def azure(path: Path, window: TraceWindow, seed: int, shared_tokens: int = 0) -> Workload:
    """One request a line, its prompt a text of its own. Raises TraceError or WorkloadError.

    With `shared_tokens` every prompt begins with the same system message of that many tokens,
    counted as part of the line's length (at least one token stays its own).
    """
    if shared_tokens < 0:
        raise WorkloadError("the shared prefix cannot be negative")

    def session(row: AzureRow) -> Session:
        shared = min(shared_tokens, row.input_tokens - 1)
        system = (TextPart(f"{seed}/shared", shared),) if shared else ()
        own = TextPart(f"{seed}/request/{row.number}", row.input_tokens - shared)
        return Session(
            turns=(Turn((own,), row.output_tokens),),
            system=system,
            at_seconds=window.scaled_seconds(row.at_seconds),
        )

    return trace_workload("azure", seed, read_azure(path), window, session)
