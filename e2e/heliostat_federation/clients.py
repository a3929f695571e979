"""Clients of regions, who note what came of every request.

A request is lost where its gateway lives and it got no response, or a failure: that is what
federation promises never to do. It is cut where the response had begun: nobody can mend that.
"""

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp

from heliostat_federation.engines import marked
from heliostat_federation.federation import Federation
from heliostat_federation.region import MODEL
from heliostat_sim.workload.text import TextPart, render_part

_REQUEST_SECONDS = 120.0
_PAUSE_SECONDS = 0.2
_runs = itertools.count()
_Result = TypeVar("_Result")


class Ending(StrEnum):
    """What came of a request."""

    OPEN = "open"
    SERVED = "served"
    REFUSED = "refused"
    """An answer that is not 200."""
    LOST = "lost"
    """The connection ended, or could not be opened, before the response."""
    CUT = "cut"
    """The response had begun and did not end rightly."""
    ABORTED = "aborted"
    """The client left."""


@dataclass(slots=True)
class Request:
    """One request and its end; instants are of the monotonic clock."""

    request_id: str
    region: str
    started_at: float
    headers_at: float | None = None
    first_token_at: float | None = None
    ended_at: float | None = None
    ending: Ending = Ending.OPEN
    detail: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""

    @property
    def ttft_seconds(self) -> float:
        """From the start to the first token."""
        assert self.first_token_at is not None
        return self.first_token_at - self.started_at


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a client asks: a text of its own, after one that it shares with others if named."""

    tokens: int = 1000
    output_tokens: int = 8
    shared: str | None = None
    shared_tokens: int = 0

    def messages(self, request_id: str) -> list[dict[str, str]]:
        """The conversation, in which engines find the id."""
        own = render_part(TextPart(f"own {request_id}", self.tokens)).decode()
        user = {"role": "user", "content": f"{own} {marked(request_id)}"}
        if self.shared is None:
            return [{"role": "user", "content": f"{marked(request_id)} {own}"}]
        system = render_part(TextPart(f"shared {self.shared}", self.shared_tokens)).decode()
        return [{"role": "system", "content": system}, user]


class Clients:
    """Asks regions of a federation; a context manager that lets what is under way end."""

    def __init__(
        self,
        federation: Federation,
        prompt: Prompt | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._federation = federation
        self._prompt = prompt or Prompt()
        self._headers = dict(headers or {})
        self._run = next(_runs)
        self._numbers = itertools.count()
        self._stop = asyncio.Event()
        self._progress = asyncio.Condition()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._session: aiohttp.ClientSession | None = None
        self.requests: list[Request] = []

    async def __aenter__(self) -> Self:
        """Open the session."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=_REQUEST_SECONDS),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Start nothing more; let what is under way end, or cancel it after an error."""
        self._stop.set()
        if error is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=error is not None)
        assert self._session is not None
        await self._session.close()

    def hold(self, region: str, clients: int) -> None:
        """Have so many clients ask a region one request after the other."""
        for _ in range(clients):
            self._spawn(self._converse(region))

    def arrive(self, region: str, requests_per_second: float, *, seed: int = 0) -> None:
        """Have requests arrive at a region by themselves (Poisson)."""
        self._spawn(self._arrivals(region, requests_per_second, random.Random(f"{region} {seed}")))

    def send(self, region: str, **body: Any) -> "asyncio.Task[Request]":
        """Send one request now, with further fields of its body; the task gives its end."""
        return self._spawn(self.ask(region, **body))

    def stop(self) -> None:
        """Start nothing more."""
        self._stop.set()

    async def ended(self, more: int, *, within_seconds: float = 60.0) -> None:
        """Wait until so many further requests have ended."""
        wanted = self._count_ended() + more
        await self.until(
            lambda: self._count_ended() >= wanted, f"{more} ended", within_seconds=within_seconds
        )

    async def until(
        self, condition: Callable[[], bool], what: str, *, within_seconds: float = 60.0
    ) -> None:
        """Wait for a condition that an end of a request, or a first token, may make true."""
        try:
            async with asyncio.timeout(within_seconds), self._progress:
                await self._progress.wait_for(condition)
        except TimeoutError:
            raise AssertionError(f"not in {within_seconds:g} s: {what}; {self.summary()}") from None

    def _count_ended(self) -> int:
        return sum(request.ended_at is not None for request in self.requests)

    def summary(self) -> str:
        """How many ended how, and why."""
        endings = Counter(
            (request.region, request.ending.value, request.detail[:120])
            for request in self.requests
        )
        return "; ".join(f"{count} x {' '.join(key).strip()}" for key, count in endings.items())

    def expect_nothing_lost(
        self, *, but: Iterable[str] = (), cut: Callable[[Request], bool] | None = None
    ) -> None:
        """Check that every request was served in full.

        but -- regions whose own gateway was killed: their clients may find nobody
        cut -- which requests may be cut after their response had begun
        """
        wrong = [
            request
            for request in self.requests
            if request.region not in but
            and request.ending is not Ending.SERVED
            and request.ending is not Ending.ABORTED
            and not (request.ending is Ending.CUT and cut is not None and cut(request))
        ]
        told = Counter((r.region, r.ending.value, r.detail[:200]) for r in wrong)
        assert not wrong, f"{len(wrong)} of {len(self.requests)}: {dict(told)}"
        assert any(r.ending is Ending.SERVED for r in self.requests), "nothing was asked"

    async def expect_none_twice(self, *, but: Callable[[Request], bool] | None = None) -> None:
        """Check with the engines that none was answered twice, and each served one once.

        but -- those whose answer could not be taken back, because its link was cut
        """
        tally = await self._federation.tally()
        for request in self.requests:
            times = sum(tally.get(request.request_id, {}).values())
            if request.ending is Ending.SERVED:
                assert times >= 1, f"{request.request_id} was answered by no engine"
            if but is None or not but(request):
                assert times <= 1, f"{request.request_id}: {tally[request.request_id]}"

    async def served_by(self) -> dict[str, Counter[str]]:
        """Count the served requests: by the region that was asked, then by the one that served."""
        tally = await self._federation.tally()
        counts: dict[str, Counter[str]] = {name: Counter() for name in self._federation.regions}
        for request in self.requests:
            if request.ending is Ending.SERVED:
                counts[request.region].update(tally.get(request.request_id, {}).keys())
        return counts

    def ttft_seconds(
        self, percent: float, region: str | None = None, *, after: float = 0.0
    ) -> float:
        """A percentile of the times to first token of served requests that began after then."""
        return percentile(
            [
                request.ttft_seconds
                for request in self.requests
                if request.ending is Ending.SERVED
                and region in (None, request.region)
                and request.started_at >= after
            ],
            percent,
        )

    async def _converse(self, region: str) -> None:
        while not self._stop.is_set():
            request = await self.ask(region)
            if request.ending is not Ending.SERVED:
                await asyncio.sleep(_PAUSE_SECONDS)  # a client's own pause before it asks again

    async def _arrivals(self, region: str, rate: float, chance: random.Random) -> None:
        due_at = time.monotonic()
        while not self._stop.is_set():
            due_at += chance.expovariate(rate)
            await asyncio.sleep(due_at - time.monotonic())
            self._spawn(self.ask(region))

    async def ask(
        self,
        region: str,
        *,
        prompt: Prompt | None = None,
        **body: object,
    ) -> Request:
        """Send one request and follow it to its end; no failure escapes as an exception."""
        request = Request(f"{self._run}.{next(self._numbers)}.{region}", region, time.monotonic())
        self.requests.append(request)
        try:
            await self._exchange(request, prompt or self._prompt, body)
        except asyncio.CancelledError:
            request.ending, request.detail = Ending.ABORTED, "by the client"
            raise
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            begun = request.headers_at is not None
            request.ending = Ending.CUT if begun else Ending.LOST
            request.detail = repr(error)
        finally:
            request.ended_at = time.monotonic()
            await asyncio.shield(self._tell())
        return request

    async def _exchange(
        self,
        request: Request,
        prompt: Prompt,
        more: Mapping[str, object],
    ) -> None:
        body = {
            "model": MODEL,
            "messages": prompt.messages(request.request_id),
            "max_tokens": prompt.output_tokens,
            "ignore_eos": True,
            "stream": True,
            **more,
        }
        url = f"{self._federation[request.region].url}/v1/chat/completions"
        assert self._session is not None
        async with self._session.post(url, json=body, headers=self._headers) as response:
            request.headers_at = time.monotonic()
            request.headers = dict(response.headers)
            if response.status != 200:
                request.ending = Ending.REFUSED
                request.detail = f"{response.status}: {(await response.text())[:300]}"
            elif body["stream"]:
                await self._read_stream(request, response)
            else:
                answer = await response.json()
                request.first_token_at = time.monotonic()
                request.text = answer["choices"][0]["message"]["content"]
                request.ending = Ending.SERVED

    async def _read_stream(self, request: Request, response: aiohttp.ClientResponse) -> None:
        pieces: list[str] = []
        async for line in response.content:
            data = line.removeprefix(b"data: ").strip()
            if data == b"[DONE]":
                request.ending, request.text = Ending.SERVED, "".join(pieces)
            if not data or request.ending is Ending.SERVED:
                continue  # to the end, so that nobody takes this for a client that leaves
            event = json.loads(data)
            if "error" in event:
                raise ValueError(f"error in the stream: {event['error']}")
            piece = "".join(c["delta"].get("content") or "" for c in event["choices"])
            if piece and request.first_token_at is None:
                request.first_token_at = time.monotonic()
                await self._tell()
            pieces.append(piece)
        if request.ending is not Ending.SERVED:
            raise ValueError(f"the stream ended after {len(pieces)} events")

    async def _tell(self) -> None:
        async with self._progress:
            self._progress.notify_all()

    def _spawn(self, work: Coroutine[Any, Any, _Result]) -> "asyncio.Task[_Result]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def under_way(*instants: float, slack_seconds: float = 1.5) -> Callable[[Request], bool]:
    """Requests that were open at one of these instants, or until that was noticed."""

    def was_open(request: Request) -> bool:
        ended_at = request.ended_at if request.ended_at is not None else float("inf")
        return any(
            request.started_at <= instant + slack_seconds and ended_at >= instant
            for instant in instants
        )

    return was_open


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    if not ordered:
        raise AssertionError("there are no values")
    return ordered[max(0, -(-len(ordered) * int(percent) // 100) - 1)]
