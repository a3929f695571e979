"""Mooncake traces: requests whose prompts share blocks of 512 tokens, named by ids."""

from pathlib import Path
from typing import Annotated

import msgspec

from heliostat_sim.workload.session import Session, Turn, Workload
from heliostat_sim.workload.text import TextPart
from heliostat_sim.workload.traces import TraceError, TraceWindow, trace_workload

BLOCK_TOKENS = 512


class MooncakeRow(msgspec.Struct, frozen=True):
    """One line of the trace."""

    timestamp: Annotated[float, msgspec.Meta(ge=0)]
    """Milliseconds from the trace's start."""
    input_length: Annotated[int, msgspec.Meta(ge=1)]
    output_length: Annotated[int, msgspec.Meta(ge=1)]
    hash_ids: tuple[int, ...]
    """An id for each block of 512 tokens; the last block may be shorter."""

    def __post_init__(self) -> None:
        needed = -(-self.input_length // BLOCK_TOKENS)
        if len(self.hash_ids) != needed:
            raise ValueError(
                f"input_length {self.input_length} takes {needed} blocks of {BLOCK_TOKENS} tokens,"
                f" but hash_ids names {len(self.hash_ids)}"
            )

    @property
    def at_seconds(self) -> float:
        """When it arrived, from the trace's start."""
        return self.timestamp / 1000


def read_mooncake(path: Path) -> list[MooncakeRow]:
    """All lines of a Mooncake trace. Raises TraceError."""
    decoder = msgspec.json.Decoder(MooncakeRow)
    rows: list[MooncakeRow] = []
    try:
        with path.open("rb") as lines:
            for line_number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    rows.append(decoder.decode(line))
                except msgspec.DecodeError as error:
                    raise TraceError.at_line(path, line_number, error) from error
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror}") from error
    return rows


def mooncake(path: Path, window: TraceWindow, seed: int) -> Workload:
    """One request a line, its prompt one message of the line's blocks. Raises TraceError.

    A block's text depends on its id and the seed alone: equal leading ids are equal prefixes.
    """

    def session(row: MooncakeRow) -> Session:
        *whole, last = (f"{seed}/block/{block}" for block in row.hash_ids)
        parts = [TextPart(key, BLOCK_TOKENS) for key in whole]
        parts.append(TextPart(last, row.input_length - BLOCK_TOKENS * len(whole)))
        turn = Turn(tuple(parts), row.output_length)
        return Session((turn,), at_seconds=window.scaled_seconds(row.at_seconds))

    return trace_workload("mooncake", seed, read_mooncake(path), window, session)
