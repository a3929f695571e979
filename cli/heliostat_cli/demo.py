"""`heliostat demo`: the same sequence of chats for each policy, on a real Envoy and new engines."""

import argparse
import asyncio
import gc
import shlex
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from rich.console import Console

from heliostat_cli.demonstration.children import ChildError
from heliostat_cli.demonstration.comparison import comparison, comparison_json, curl_line
from heliostat_cli.demonstration.ports import PortError, choose_port
from heliostat_cli.demonstration.program import called_program
from heliostat_cli.demonstration.scenario import MODEL, SCENARIO
from heliostat_cli.demonstration.screen import Display, Scene, open_display
from heliostat_cli.demonstration.stage import Stage, run_stage
from heliostat_cli.demonstration.watch import watch_fleet
from heliostat_cli.loading import GatewayError, LoadOptions, LoadReport, Progress, run_load
from heliostat_routing.settings import PolicyName

_DEFAULT_SECONDS = 20.0
_DEFAULT_POLICIES = (PolicyName.ROUND_ROBIN, PolicyName.HELIOSTAT)
_T = TypeVar("_T")


class StoppedError(Exception):
    """The user has asked for the end."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.epilog = (
        "Exit status: 0 if no request failed, 1 if one did or something did not start, 2 on wrong"
        " options, 130 on ^C before the end (what was measured is shown)."
    )
    parser.add_argument(
        "--seconds",
        type=_positive_number,
        default=_DEFAULT_SECONDS,
        metavar="N",
        help="how long each policy is sent requests (default: %(default)g)",
    )
    parser.add_argument(
        "--policies",
        type=_policies,
        default=_DEFAULT_POLICIES,
        metavar="A,B",
        help="which, in this order, of " + ", ".join(PolicyName) + " (default: "
        f"{','.join(_DEFAULT_POLICIES)})",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the chats (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the reports as JSON (- for stdout)")
    parser.add_argument(
        "--keep", action="store_true", help="keep the last gateway and its engines until ^C"
    )
    parser.add_argument(
        "--port", type=int, metavar="PORT", help="the gateway's (default: 8080, else a free one)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo; the exit status is as the help says."""
    if args.json not in (None, "-"):
        try:
            Path(args.json).touch()
        except OSError as error:
            print(f"heliostat demo: --json {args.json}: {error.strerror}", file=sys.stderr)
            return 2
    try:
        port = choose_port(args.port)
        return uvloop.run(_run(args, port))
    except (ChildError, GatewayError, PortError, OSError) as error:
        print(f"heliostat demo: {error}", file=sys.stderr)
        return 1


async def _run(args: argparse.Namespace, port: int) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    with tempfile.TemporaryDirectory(prefix="heliostat-demo-") as folder:
        return await Demo(args, port, Path(folder), stop).run()


class Demo:
    """One run of the command."""

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
                self._say(f"{program} demo --keep --port {self._port}")
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
        stage = await self._unless_stopped(stack.enter_async_context(starting))
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

    async def _unless_stopped(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do this, or give it up and raise StoppedError when the user asks for the end."""
        task = asyncio.create_task(work)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise StoppedError
        finally:
            stopping.cancel()
            task.cancel()
            await asyncio.gather(task, stopping, return_exceptions=True)

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


def _policies(text: str) -> tuple[PolicyName, ...]:
    try:
        policies = tuple(PolicyName(name.strip()) for name in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}: known are {', '.join(PolicyName)}") from error
    if len(set(policies)) < len(policies):
        raise argparse.ArgumentTypeError("each policy once")
    return policies


def _positive_number(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return value
