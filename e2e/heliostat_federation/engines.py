"""Engine stand-ins of a region that remember, by request, how often they began and answered it.

A client's request carries an id in its prompt (`marked`). Who sums up the tallies of all regions
sees what was lost and what was computed twice. Run as `python -m heliostat_federation.engines`
with the options of `heliostat engine` that are named below; prints a line with the addresses when
ready, and answers `GET /tally` on a port of its own.
"""

import argparse
import asyncio
import contextlib
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

import uvloop
from aiohttp import web
from aiohttp.typedefs import Handler

from heliostat_sim.standin import server
from heliostat_sim.standin.app import StandIn
from heliostat_sim.standin.options import EngineOptions

_MARK = re.compile(rb"\[request ([a-z0-9.-]+)\]")
TALLY_PORT = 9100


def marked(request_id: str) -> str:
    """The text that tells engines the request's id."""
    return f"[request {request_id}]"


@dataclass(slots=True)
class Count:
    """What the engines of one region did for a request."""

    begun: int = 0
    answered: int = 0
    """To the end."""
    aborted: int = 0


class Tally:
    """Counts by request id."""

    def __init__(self) -> None:
        self._counts: dict[str, Count] = {}

    @web.middleware
    async def count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count a completion, as a middleware of a stand-in."""
        found = _MARK.findall(await request.read()) if request.method == "POST" else []
        if not found:
            return await handler(request)
        count = self._counts.setdefault(found[-1].decode(), Count())
        count.begun += 1
        try:
            response = await handler(request)
        except (asyncio.CancelledError, ConnectionError):
            count.aborted += 1
            raise
        if response.status == 200:
            count.answered += 1
        return response

    async def on_get(self, _request: web.Request) -> web.Response:
        """Tell all counts."""
        told = {request_id: asdict(count) for request_id, count in self._counts.items()}
        return web.json_response(told)


@asynccontextmanager
async def _tallied_engines(options: list[EngineOptions], tally: Tally) -> AsyncIterator[list[str]]:
    """Run stand-ins whose completions are counted."""
    build = StandIn.__init__

    def build_counting(stand_in: StandIn, *args: object, **more: object) -> None:
        build(stand_in, *args, **more)  # type: ignore[arg-type]
        stand_in.app.middlewares.append(tally.count)

    StandIn.__init__ = build_counting  # type: ignore[method-assign, assignment]
    async with server.running_engines(options) as engines:
        yield [engine.address for engine in engines]


async def _serve(options: list[EngineOptions]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    tally = Tally()
    application = web.Application()
    application.router.add_get("/tally", tally.on_get)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "0.0.0.0", TALLY_PORT).start()
        async with _tallied_engines(options, tally) as addresses:
            sys.stdout.write(json.dumps({"addresses": addresses}) + "\n")
            sys.stdout.flush()
            await stop.wait()
    finally:
        with contextlib.suppress(OSError):
            await runner.cleanup()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--kv-tokens", type=int)
    parser.add_argument("--max-num-seqs", type=int)
    args = parser.parse_args()
    options = [
        EngineOptions(
            port=args.port + number,
            model=args.model,
            profile=args.profile,
            speed_ratio=args.speed,
            kv_tokens=args.kv_tokens,
            max_running_requests=args.max_num_seqs,
        )
        for number in range(args.count)
    ]
    uvloop.run(_serve(options))


if __name__ == "__main__":
    main()
