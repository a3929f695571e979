"""How late this process's own event loop runs: a load tool that lags measures itself."""

import asyncio
import re

import aiohttp

from heliostat_cli.loading.histogram import DurationHistogram

_INTERVAL_SECONDS = 0.01
_ENGINE_LAG = re.compile(
    r'^heliostat_standin_event_loop_lag_seconds{quantile="0.99"} (\S+)', re.MULTILINE
)


async def watch_lag(lag: DurationHistogram) -> None:
    """Record, until cancelled, how late each 10 ms tick came.

    A stall delays all ticks that fall into it, and each of them is counted.
    """
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        now = loop.time()
        while due <= now:
            lag.record(now - due)
            due += _INTERVAL_SECONDS
        await asyncio.sleep(due - now)


async def fetch_engine_lag(http: aiohttp.ClientSession, url: str) -> float | None:
    """Ask an engine stand-in for its own lag (p99, seconds); None if it cannot be had."""
    try:
        async with http.get(f"{url.rstrip('/')}/metrics") as response:
            found = _ENGINE_LAG.search(await response.text())
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None
    return float(found[1]) if found else None
