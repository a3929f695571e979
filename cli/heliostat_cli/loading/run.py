"""Runs a workload against a gateway: who sends what when, and when it stops."""

import asyncio
import time
from collections.abc import Callable, Coroutine

import aiohttp

from heliostat_cli.loading.client import Client, fetch_model
from heliostat_cli.loading.lag import fetch_engine_lag, watch_lag
from heliostat_cli.loading.options import LoadOptions, OptionError
from heliostat_cli.loading.report import LoadReport, Measurements, Progress
from heliostat_cli.loading.wire import encode_message
from heliostat_sim.workload.session import Session, Turn, Workload
from heliostat_sim.workload.text import render


async def run_load(
    options: LoadOptions,
    workload: Workload,
    on_progress: Callable[[Progress], None],
    stop: asyncio.Event | None = None,
) -> LoadReport:
    """Send the workload and report. Setting `stop` ends the run at once, with what it has.

    Failed requests are counted in the report. Raises OptionError if an untimed workload has no
    concurrency, GatewayError if the gateway does not answer at the start.
    """
    if options.concurrency is None and not workload.timed:
        raise OptionError(f"the {workload.name} workload needs a concurrency or a rate")
    timeout = aiohttp.ClientTimeout(total=options.timeout_seconds)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        client = Client(http, options.url, await fetch_model(http, options))
        measurements = Measurements()
        background = [
            asyncio.create_task(watch_lag(measurements.lag)),
            asyncio.create_task(_report_progress(options, measurements, on_progress)),
        ]
        try:
            sender = Sender(options, client, measurements)
            finished = await _run_until(sender.send_all(workload), stop or asyncio.Event())
        finally:
            await _cancel(*background)
        if options.engine_url is not None:
            measurements.engine_lag_p99_seconds = await fetch_engine_lag(http, options.engine_url)
    on_progress(measurements.progress())
    return measurements.report(workload.name, workload.seed, interrupted=not finished)


async def _run_until(work: Coroutine[None, None, None], stop: asyncio.Event) -> bool:
    """Run to the end, or cut off when `stop` is set; whether the end was reached."""
    task = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return True
        return False
    finally:
        await _cancel(task, stopping)


async def _cancel(*tasks: asyncio.Task[None] | asyncio.Task[bool]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _report_progress(
    options: LoadOptions, measurements: Measurements, on_progress: Callable[[Progress], None]
) -> None:
    while True:
        on_progress(measurements.progress())
        await asyncio.sleep(options.progress_seconds)


class Sender:
    """Sends the sessions of a workload, within the limits of the options."""

    def __init__(self, options: LoadOptions, client: Client, measurements: Measurements) -> None:
        self._options = options
        self._client = client
        self._measurements = measurements
        self._loop = asyncio.get_running_loop()
        self._began_at = self._loop.time()
        self._started = 0

    async def send_all(self, workload: Workload) -> None:
        """Send everything the limits allow and wait for the answers."""
        if self._options.concurrency is None:
            await self._send_timed(workload)
        else:
            await self._send_concurrently(workload, self._options.concurrency)

    async def _send_timed(self, workload: Workload) -> None:
        async with asyncio.TaskGroup() as group:
            for session in workload:
                delay_seconds = self._began_at + session.at_seconds - self._loop.time()
                if not self._may_start(after_seconds=delay_seconds):
                    break
                due_at = time.perf_counter() + delay_seconds
                await asyncio.sleep(delay_seconds)
                group.create_task(self._send_session(session, due_at))

    async def _send_concurrently(self, workload: Workload, concurrency: int) -> None:
        sessions = iter(workload)

        async def send_next() -> None:
            while self._may_start() and (session := next(sessions, None)) is not None:
                await self._send_session(session)

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(send_next())

    def _may_start(self, after_seconds: float = 0.0) -> bool:
        """Whether the limits allow one more request, sent `after_seconds` from now."""
        options = self._options
        if options.max_requests is not None and self._started >= options.max_requests:
            return False
        sent_at = self._loop.time() + max(0.0, after_seconds)
        return options.seconds is None or sent_at - self._began_at < options.seconds

    async def _send_session(self, session: Session, due_at: float | None = None) -> None:
        messages = [encode_message("system", render(session.system))] if session.system else []
        last = session.turns[-1]
        for turn in session.turns:
            if not self._may_start(after_seconds=turn.think_seconds):
                return
            if turn.think_seconds:
                await asyncio.sleep(turn.think_seconds)
                if not self._may_start():
                    return
            messages.append(encode_message("user", render(turn.user)))
            answer = await self._send_turn(messages, turn, turn is not last, due_at)
            if answer is None:
                return
            due_at = None
            messages.append(encode_message("assistant", answer))

    async def _send_turn(
        self, messages: list[bytes], turn: Turn, keep_text: bool, due_at: float | None
    ) -> bytes | None:
        """The answer's text as it stands in JSON; None if the request failed."""
        self._started += 1
        self._measurements.active += 1
        self._measurements.on_send()
        try:
            outcome = await self._client.ask(
                messages, turn.output_tokens, self._measurements.token_gaps, keep_text, due_at
            )
        finally:
            self._measurements.active -= 1
        self._measurements.record(outcome)
        return outcome.escaped_text if outcome.failure is None else None
