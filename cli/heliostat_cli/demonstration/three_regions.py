"""The demo of three regions: the same day twice, each region for itself and then federated."""

import argparse
import asyncio
import gc
import sys
from pathlib import Path

from rich.console import Console

from heliostat_cli.demonstration.children import ChildError
from heliostat_cli.demonstration.day_report import day_json, day_report
from heliostat_cli.demonstration.day_run import DayState, Mode, run_day
from heliostat_cli.demonstration.day_screen import DayDisplay, DayScene, open_day_display
from heliostat_cli.demonstration.provisioning import Provisioning, find_provisioning
from heliostat_cli.demonstration.stopping import StoppedError, unless_stopped
from heliostat_cli.demonstration.sun import Day
from heliostat_cli.demonstration.tally import Tally


class ThreeRegionsDemo:
    """One run of `heliostat demo`."""

    def __init__(self, args: argparse.Namespace, folder: Path, stop: asyncio.Event) -> None:
        self._args = args
        self._folder = folder
        self._stop = stop
        self._console = Console(file=sys.stderr if args.json == "-" else sys.stdout)
        self._scene = DayScene(Day(args.seconds, args.seed))
        self._provisioning: Provisioning | None = None

    async def run(self) -> int:
        """Show both days, then the table; returns the exit status."""
        error: ChildError | None = None
        try:
            with open_day_display(self._console) as display:
                await unless_stopped(self._show(display), self._stop)
        except ChildError as problem:
            error = problem
        except StoppedError:
            pass
        self._deliver()
        if error is not None:
            raise error
        if self._stop.is_set():
            return 130
        return 1 if any(state.tally.failed for state in self._scene.states) else 0

    async def _show(self, display: DayDisplay) -> None:
        scene = self._scene
        gc.collect()
        gc.freeze()
        for mode in Mode:
            state = DayState(mode, scene.day, Tally(scene.day.seconds))
            scene.states.append(state)
            display.show(scene)
            await run_day(state, self._folder / mode, lambda: display.show(scene))
        scene.asking_simulator = True
        display.show(scene)
        self._provisioning = await asyncio.to_thread(
            find_provisioning, scene.day, lambda: not self._stop.is_set()
        )

    def _deliver(self) -> None:
        """Show and write what was measured."""
        scene = self._scene
        begun = [state for state in scene.states if state.running]
        if begun:
            report = day_report(scene.day, begun, self._provisioning)
            self._console.print(report, highlight=False)
        text = day_json(scene.day, begun, self._provisioning) + "\n"
        if self._args.json == "-":
            sys.stdout.write(text)
            sys.stdout.flush()
        elif self._args.json is not None:
            Path(self._args.json).write_text(text, encoding="utf-8")
