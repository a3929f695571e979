"""How late this process's own event loop runs: a load tool that lags measures itself."""

import asyncio

from heliostat_cli.loading.histogram import DurationHistogram

_INTERVAL_SECONDS = 0.01


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
