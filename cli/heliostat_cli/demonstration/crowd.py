"""The clients of all regions: they come and go with the sun, and wait for every answer.

A client asks its own region's gateway. Where nobody takes the connection it asks the next nearest
one, as clients do whose name service watches the gateways.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence

import aiohttp

from heliostat_cli.demonstration.sun import MODEL, REGIONS, Day, RegionPlan
from heliostat_cli.demonstration.tally import Tally
from heliostat_cli.loading.client import Client
from heliostat_cli.loading.histogram import DurationHistogram
from heliostat_cli.loading.report import Outcome
from heliostat_cli.loading.wire import encode_message
from heliostat_sim.workload.session import Session, Turn
from heliostat_sim.workload.text import render

_RETRY_SECONDS = 0.25


class Crowd:
    """All clients of one run. `gateways` are the URLs to ask, by region and in the order to ask."""

    def __init__(
        self,
        day: Day,
        gateways: Mapping[str, Mapping[str, str]],
        http: aiohttp.ClientSession,
        tally: Tally,
    ) -> None:
        self._day = day
        self._clients = {
            region: {asked: Client(http, url, MODEL) for asked, url in urls.items()}
            for region, urls in gateways.items()
        }
        self._tally = tally
        self._token_gaps = DurationHistogram()
        self.active = 0
        """Requests that wait for their answer or its end."""

    async def run(self) -> None:
        """Live through the day, and wait for the answers that are still to come."""
        dealt = self._day.deal_chats()
        self._tally.begin()
        async with asyncio.TaskGroup() as group:
            for region in REGIONS:
                for number in range(self._day.peak_clients):
                    group.create_task(self._live(region, number, dealt[region.name, number]))

    async def _live(self, region: RegionPlan, number: int, chats: Iterator[Session]) -> None:
        for begins_at, ends_at in self._day.shifts(region, number):
            await asyncio.sleep(max(0.0, begins_at - self._tally.elapsed_seconds))
            while self._tally.elapsed_seconds < ends_at:
                if not await self._chat(region.name, next(chats), ends_at):
                    await asyncio.sleep(_RETRY_SECONDS)

    async def _chat(self, region: str, session: Session, ends_at: float) -> bool:
        """Go through a chat up to the end of the shift; whether every answer came."""
        messages = [encode_message("system", render(session.system))] if session.system else []
        for turn in session.turns:
            if self._tally.elapsed_seconds + turn.think_seconds >= ends_at:
                await asyncio.sleep(max(0.0, ends_at - self._tally.elapsed_seconds))
                return True
            await asyncio.sleep(turn.think_seconds)
            messages.append(encode_message("user", render(turn.user)))
            outcome = await self._ask(region, messages, turn)
            if outcome.failure is not None:
                return False
            messages.append(encode_message("assistant", outcome.escaped_text))
        return True

    async def _ask(self, region: str, messages: Sequence[bytes], turn: Turn) -> Outcome:
        due_at = time.perf_counter()
        self.active += 1
        outcome, asked = Outcome(failure="connection"), region
        try:
            for asked, client in self._clients[region].items():  # noqa: B007 - the last one counts
                outcome = await client.ask(
                    messages, turn.output_tokens, self._token_gaps, keep_text=True, due_at=due_at
                )
                if outcome.connected:
                    break
        finally:
            self.active -= 1
        self._tally.record(region, asked, outcome)
        return outcome
