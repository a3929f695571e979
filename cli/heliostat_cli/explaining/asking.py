"""Asks routers about requests; an answer of another shape is a problem, never a crash."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ToldRequest:
    """A request as a router tells of it."""

    raw: Mapping[str, Any]

    def text(self, key: str) -> str:
        """A value of it, as a terminal may show it: `-` where it is not known."""
        return printable(self.raw.get(key))

    def number(self, key: str) -> float | None:
        """A number of it."""
        return number(self.raw.get(key))

    @property
    def steps(self) -> Sequence[Mapping[str, Any]]:
        """Its way, in order."""
        return _mappings(self.raw.get("steps"))


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking at one URL."""

    url: str
    requests: tuple[ToldRequest, ...] = ()
    problem: str = ""


async def ask_all(
    http: aiohttp.ClientSession, urls: Sequence[str], request_id: str | None, most: int
) -> list[Answer]:
    """Ask all at once, in the order of the URLs."""
    query = {"most": str(most)} if request_id is None else {"id": request_id}
    return await asyncio.gather(*(_ask(http, url, query) for url in urls))


async def _ask(http: aiohttp.ClientSession, url: str, query: dict[str, str]) -> Answer:
    try:
        async with (
            asyncio.timeout(_TIMEOUT_SECONDS),
            http.get(f"{url}/requests", params=query, allow_redirects=False) as response,
        ):
            if response.status != 200:
                return Answer(url, problem=f"/requests answers {response.status}")
            told = json.loads(await response.read())
    except TimeoutError:
        return Answer(url, problem=f"no answer within {_TIMEOUT_SECONDS:g} s")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Answer(url, problem=str(error) or type(error).__name__)
    requests = told.get("requests") if isinstance(told, dict) else None
    if not isinstance(requests, list):
        return Answer(url, problem="its answer is not a router's")
    return Answer(url, tuple(map(ToldRequest, _mappings(requests))))


def candidates(step: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Who was considered in a decision."""
    return _mappings(step.get("candidates"))


def printable(value: object) -> str:
    """A value without what a terminal would obey."""
    if value is None or value == "":
        return "-"
    return "".join(character for character in str(value) if character.isprintable())


def number(value: object) -> float | None:
    """A number, if it is one."""
    return float(value) if isinstance(value, int | float) else None


def _mappings(values: object) -> Sequence[Mapping[str, Any]]:
    if not isinstance(values, list):
        return ()
    return [value for value in values if isinstance(value, dict)]
