"""Asks routers how they are; whatever goes wrong with one is its answer."""

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from heliostat_cli.overview.answers import AnswerError, RouterStatus, read_router

_TIMEOUT_SECONDS = 3.0


class _NotFoundError(AnswerError):
    """The server knows no such path."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking at one URL: a status, or a problem."""

    url: str
    status: RouterStatus | None = None
    problem: str = ""


async def ask_all(http: aiohttp.ClientSession, urls: Sequence[str]) -> list[Answer]:
    """Ask all at once, in the order of the URLs."""
    return await asyncio.gather(*(ask(http, url) for url in urls))


async def ask(http: aiohttp.ClientSession, url: str) -> Answer:
    """Ask the router whose admin port is at this URL."""
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            pools, peers = await asyncio.gather(_get(http, url, "/pools"), _peers(http, url))
        return Answer(url, read_router(pools, peers))
    except TimeoutError:
        return Answer(url, problem=f"no answer within {_TIMEOUT_SECONDS:g} s")
    except AnswerError as error:
        return Answer(url, problem=str(error))
    except aiohttp.ClientConnectorError as error:
        number = error.os_error.errno
        return Answer(url, problem=os.strerror(number) if number else str(error.os_error))
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Answer(url, problem=str(error) or type(error).__name__)


async def _peers(http: aiohttp.ClientSession, url: str) -> Any | None:
    """What it says of its peers; None from a router that knows of no federation."""
    try:
        return await _get(http, url, "/peers")
    except _NotFoundError:
        return None


async def _get(http: aiohttp.ClientSession, url: str, path: str) -> Any:
    async with http.get(f"{url}{path}", allow_redirects=False) as response:
        if response.status == 404:
            raise _NotFoundError(f"{path} is not there: is it a router's admin port?")
        if response.status != 200:
            raise AnswerError(f"{path} answers {response.status}")
        try:
            return json.loads(await response.read())
        except ValueError as error:
            raise AnswerError(f"{path} answers no JSON") from error
