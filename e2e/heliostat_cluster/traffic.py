"""Clients that hold conversations through a gateway without a pause, and note every answer.

What a scenario claims ("0 failed requests") is counted here: an answer is right only when its
stream ran to the end and held every token that was asked for.
"""

import asyncio
import itertools
import json
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import aiohttp

_ATTEMPT_SECONDS = 120.0
_TURNS = 6
"""Turns of a conversation before a client begins another."""


class TrafficError(AssertionError):
    """The traffic did not do what the scenario needs of it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One right answer: when it began and ended (monotonic seconds), and its engine if told."""

    started_at: float
    ended_at: float


@dataclass(slots=True)
class Tally:
    """What came back so far."""

    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class Traffic:
    """`clients` conversations at once, streaming `tokens` tokens an answer; a context manager.

    Leaving the context lets the requests under way finish, so that none is lost by the test.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        clients: int = 8,
        tokens: int = 40,
        headers: dict[str, str] | None = None,
    ) -> None:
        self._url = f"{url}/v1/chat/completions"
        self._model = model
        self._clients = clients
        self._tokens = tokens
        self._headers = headers or {}
        self._stop = asyncio.Event()
        self._progress = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None
        self.tally = Tally()

    async def __aenter__(self) -> Self:
        """Start the clients."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=_ATTEMPT_SECONDS),
        )
        self._tasks = [
            asyncio.create_task(self._converse(self._session, number))
            for number in range(self._clients)
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let what is under way finish."""
        self._stop.set()
        await asyncio.gather(*self._tasks)
        assert self._session is not None
        await self._session.close()

    async def answered(self, more: int, *, within_seconds: float = 60.0) -> None:
        """Wait until `more` further answers have come; TrafficError if they do not."""
        wanted = len(self.tally.answers) + more
        try:
            async with asyncio.timeout(within_seconds), self._progress:
                await self._progress.wait_for(lambda: len(self.tally.answers) >= wanted)
        except TimeoutError:
            came = more - (wanted - len(self.tally.answers))
            raise TrafficError(
                f"{came} of {more} answers in {within_seconds:.0f} s; {self._failures_told()}"
            ) from None

    async def keeps_answering(self, *, seconds: float, gap_seconds: float = 15.0) -> None:
        """Watch for so long that no gap between answers is longer; TrafficError if one is."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await self.answered(1, within_seconds=gap_seconds)

    def expect_no_failures(self) -> None:
        """Raise TrafficError if any request failed, or none was answered."""
        if self.tally.failures:
            raise TrafficError(self._failures_told())
        if not self.tally.answers:
            raise TrafficError("no request was answered")

    def _failures_told(self) -> str:
        failures = self.tally.failures
        told = "; ".join(dict.fromkeys(failures[:5]))
        return f"{len(failures)} failed of {len(failures) + len(self.tally.answers)}: {told}"

    async def _converse(self, session: aiohttp.ClientSession, number: int) -> None:
        for conversation in itertools.count():
            messages: list[dict[str, str]] = []
            for turn in range(_TURNS):
                if self._stop.is_set():
                    return
                question = f"client {number} conversation {conversation} turn {turn}: go on. " * 8
                messages.append({"role": "user", "content": question})
                text = await self._ask(session, messages)
                if text is None:
                    break
                messages.append({"role": "assistant", "content": text})

    async def _ask(
        self, session: aiohttp.ClientSession, messages: list[dict[str, str]]
    ) -> str | None:
        """Ask once; give the answer's text, None where it failed."""
        started_at = time.monotonic()
        try:
            text = await self._stream(session, messages)
        except (aiohttp.ClientError, TimeoutError, TrafficError, ValueError) as error:
            after = time.monotonic() - started_at
            self.tally.failures.append(f"after {after:.1f} s: {error!r}"[:300])
            await asyncio.sleep(0.2)  # a client's own pause before it asks again
            return None
        self.tally.answers.append(Answer(started_at, time.monotonic()))
        async with self._progress:
            self._progress.notify_all()
        return text

    async def _stream(self, session: aiohttp.ClientSession, messages: list[dict[str, str]]) -> str:
        body = {
            "model": self._model,
            "messages": messages,
            "max_tokens": self._tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async with session.post(self._url, json=body, headers=self._headers) as response:
            if response.status != 200:
                raise TrafficError(f"{response.status}: {(await response.text())[:200]}")
            return await self._read_answer(response)

    async def _read_answer(self, response: aiohttp.ClientResponse) -> str:
        pieces: list[str] = []
        tokens = 0
        async for line in response.content:
            if not line.startswith(b"data: "):
                continue
            data = line[6:].strip()
            if data == b"[DONE]":
                if tokens != self._tokens:
                    raise TrafficError(f"{tokens} of {self._tokens} tokens")
                return "".join(pieces)
            event = json.loads(data)
            if "error" in event:
                raise TrafficError(f"error in the stream: {event['error']}")
            pieces += [c["delta"].get("content") or "" for c in event.get("choices", ())]
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
        raise TrafficError(f"the stream was cut after {len(pieces)} pieces")
