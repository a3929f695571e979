"""Records what a simulated router decides, in the router process's own format, and replays both.

One file holds one router from its beginning: a router that restarts is another one, and is not
recorded.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from heliostat_extproc.recorder import FileRecorder
from heliostat_routing.errors import RecordingError
from heliostat_routing.recording import Step, replay
from heliostat_sim.world.heliostat import Observer

_SHOWN_CHARACTERS = 600


class ReplayDifferenceError(Exception):
    """A replay decides differently from its recording."""


class GatewayRecorder:
    """Says who looks on at a router: the recording, if it is the one to be recorded."""

    def __init__(self, gateway: str, recorder: FileRecorder) -> None:
        self._gateway = gateway
        self._recorder = recorder
        self._begun = False

    def __call__(self, gateway: str) -> Observer | None:
        """The recorder, the first time that this gateway's router begins."""
        if self._begun or gateway != self._gateway:
            return None
        self._begun = True
        return self._recorder.record


@dataclass(frozen=True, slots=True)
class ReplayCount:
    """What a replay came to."""

    steps: int
    agreeing: int
    first_difference: tuple[int, Step] | None
    """The line, from 1, and the step."""

    def check(self, path: Path) -> None:
        """Raise ReplayDifferenceError, with the first difference, if there is one."""
        if self.first_difference is None:
            return
        line, step = self.first_difference
        raise ReplayDifferenceError(
            f"{path}:{line}: the replay differs at {step.now:.6f} s, {type(step.event).__name__}\n"
            f"  recorded: {_shown(step.recorded)}\n"
            f"  replayed: {_shown(step.replayed)}"
        )


def replay_file(path: Path) -> ReplayCount:
    """Feed a recording to a fresh router. Raises RecordingError, OSError.

    A last line without an end is left out: the recording process was killed while it wrote.
    """
    agreeing = number = 0
    first_difference = None
    with path.open("rb") as file:
        try:
            for number, step in enumerate(replay(_steps(file)), start=1):
                if step.recorded == step.replayed:
                    agreeing += 1
                elif first_difference is None:
                    first_difference = number, step
        except RecordingError as error:
            raise RecordingError(f"{path}:{number + 1}: {error}") from error
    return ReplayCount(number, agreeing, first_difference)


def _steps(file: BinaryIO) -> Iterator[dict[str, Any]]:
    for line in file:
        if not line.endswith(b"\n"):
            return
        try:
            step = json.loads(line)
        except ValueError as error:
            raise RecordingError(f"not JSON: {error}") from error
        if not isinstance(step, dict):
            raise RecordingError("a step is a JSON object")
        yield step


def _shown(commands: list[Any]) -> str:
    text = json.dumps(commands)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + " ..."
