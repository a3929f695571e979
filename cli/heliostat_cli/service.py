"""What the commands share that run until they are told to stop: logs, signals, exit status."""

import argparse
import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable

import uvloop

from heliostat_extproc.logs import LogFormat, configure_logs


def add_log_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options on logs."""
    parser.add_argument(
        "--log-format",
        choices=[choice.value for choice in LogFormat],
        default=LogFormat.CONSOLE.value,
        help="(default: %(default)s)",
    )
    parser.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default="info",
        help="(default: %(default)s)",
    )


def run_service(
    args: argparse.Namespace,
    serve: Callable[[asyncio.Event], Awaitable[None]],
    *failures: type[Exception],
) -> int:
    """Run `serve` and give the exit status; its event is set by the first SIGTERM or ^C.

    The second ends it at once. `failures`, and OSError, are told in one line.
    """
    configure_logs(LogFormat(args.log_format), args.log_level)
    told: tuple[type[Exception], ...] = (OSError, *failures)
    gc.freeze()  # what is loaded stays: a full collection over it would stall the loop by 100 ms
    try:
        uvloop.run(_with_signals(serve))
    except told as error:
        print(f"heliostat: {error}", file=sys.stderr)
        return 1
    except asyncio.CancelledError:
        return 130
    return 0


async def _with_signals(serve: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    task = asyncio.ensure_future(serve(stop))

    def on_signal() -> None:
        if stop.is_set():
            task.cancel()
        else:
            print("Waiting for what is under way; once more ends it at once.", file=sys.stderr)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    await task
