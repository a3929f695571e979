"""The demo of one region: the same sequence of chats for each policy, on new engines each time."""

import argparse
import asyncio
import gc
import shlex
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from heliostat_cli.demonstration.children import ChildError
from heliostat_cli.demonstration.comparison import comparison, comparison_json, curl_line
from heliostat_cli.demonstration.program import called_program
from heliostat_cli.demonstration.scenario import MODEL, SCENARIO
from heliostat_cli.demonstration.screen import Display, Scene, open_display
from heliostat_cli.demonstration.stage import Stage, run_stage
from heliostat_cli.demonstration.stopping import StoppedError, unless_stopped
from heliostat_cli.demonstration.watch import watch_fleet
from heliostat_cli.loading import LoadOptions, LoadReport, Progress, run_load


class SingleRegionDemo:
    """One run of `heliostat demo --single-region`."""

    def __init__(
        self, args: argparse.Namespace, port: int, folder: Path, stop: asyncio.Event
    ) -> None:
        self._args = args
        self._port = port
        self._folder = folder
        self._stop = stop
        self._console = Console(file=sys.stderr if args.json == "-" else sys.stdout)
        self._scene = Scene(policies=tuple(args.policies), seconds=args.seconds)

    async def run(self) -> int:
        """Show every policy, then the comparison; returns the exit status."""
        async with AsyncExitStack() as stack:
            error: ChildError | None = None
            stage: Stage | None = None
            try:
                with open_display(self._console) as display:
                    stage = await self._show_policies(display, stack)
            except ChildError as problem:
                error = problem
            except StoppedError:
                pass
            self._deliver()
            if error is not None:
                raise error
            if self._stop.is_set():
                return 130
            if stage is not None:
                await self._keep(stage)
            else:
                program = shlex.quote(called_program(sys.argv[0], Path.cwd()))
                self._say("\nTo run it again and keep the last gateway and its engines until ^C:")
                self._say(f"{program} demo --single-region --keep --port {self._port}")
                self._say("and then, in another shell:")
                self._say(curl_line(f"http://127.0.0.1:{self._port}", MODEL))
        return 1 if any(report.failed for report in self._scene.reports.values()) else 0

    async def _show_policies(self, display: Display, stack: AsyncExitStack) -> Stage | None:
        """Run each policy; the last one's stage, on the caller's stack, where it is to be kept."""
        *others, last = self._scene.policies
        for policy in others:
            async with AsyncExitStack() as own:
                await self._show_policy(policy, display, own)
        if self._args.keep:
            return await self._show_policy(last, display, stack)
        async with AsyncExitStack() as own:
            await self._show_policy(last, display, own)
        return None

    async def _show_policy(self, policy: str, display: Display, stack: AsyncExitStack) -> Stage:
        scene = self._scene
        scene.enter(policy)
        display.show(scene)
        starting = run_stage(SCENARIO, policy, self._port, self._folder)
        stage = await unless_stopped(stack.enter_async_context(starting), self._stop)
        scene.url = stage.url

        def on_progress(progress: Progress) -> None:
            scene.progress = progress
            display.show(scene)

        watching = asyncio.create_task(watch_fleet(stage, scene.fleet))
        try:
            scene.reports[policy] = await self._load(stage, on_progress)
        finally:
            watching.cancel()
        if self._stop.is_set():
            raise StoppedError
        stage.check()
        return stage

    async def _load(self, stage: Stage, on_progress: Callable[[Progress], None]) -> LoadReport:
        """Send the chats until their time is over, the user stops or a process dies."""
        options = LoadOptions(
            url=stage.url,
            model=MODEL,
            engine_url=f"http://{stage.engine_addresses[0]}",
            concurrency=SCENARIO.concurrency,
            seconds=self._args.seconds,
            timeout_seconds=SCENARIO.timeout_seconds,
        )
        workload = SCENARIO.workload(self._args.seed, self._args.seconds)
        gc.collect()
        gc.freeze()
        async with self._ending(stage) as ending:
            return await run_load(options, workload, on_progress, ending)

    @asynccontextmanager
    async def _ending(self, stage: Stage) -> AsyncIterator[asyncio.Event]:
        """An event that is set once the user stops or one of the stage's processes ends."""
        ending = asyncio.Event()
        waits = [self._stop.wait(), *(child.ended() for child in stage.children)]
        watchers = [asyncio.create_task(_set_after(wait, ending)) for wait in waits]
        try:
            yield ending
        finally:
            for watcher in watchers:
                watcher.cancel()

    def _deliver(self) -> None:
        """Show and write what was measured."""
        reports = self._scene.reports
        if reports:
            self._console.print(comparison(reports), highlight=False)
        text = comparison_json(reports) + "\n"
        if self._args.json == "-":
            sys.stdout.write(text)
            sys.stdout.flush()
        elif self._args.json is not None:
            Path(self._args.json).write_text(text, encoding="utf-8")

    async def _keep(self, stage: Stage) -> None:
        """Wait for the user's end; raises ChildError if a process ends before."""
        self._say(f"\nStill running, until ^C: {stage.url} (admin: {stage.admin_url}). Try:")
        self._say(curl_line(stage.url, MODEL))
        async with self._ending(stage) as ending:
            await ending.wait()
        if not self._stop.is_set():
            stage.check()

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._console.file.flush()


async def _set_after(wait: Coroutine[Any, Any, object], event: asyncio.Event) -> None:
    await wait
    event.set()
