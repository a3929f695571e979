"""`heliostat load`: sends OpenAI requests and reports latency, throughput and hit ratio."""

import argparse
import asyncio
import gc
import json
import resource
import signal
import sys
from pathlib import Path

import uvloop

from heliostat_cli.loading import GatewayError, LoadOptions, LoadReport, OptionError, run_load
from heliostat_cli.loading.display import print_report, progress_display
from heliostat_cli.loading.workloads import choose_workload, configure_workload
from heliostat_sim.workload.session import Workload, WorkloadError

_DEFAULTS = LoadOptions()
_DEFAULT_CONCURRENCY = 16


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `heliostat load`."""
    parser.epilog = (
        "Exit status: 0 if no request failed, 1 if one did or the gateway does not answer, 2 on"
        " wrong options, 130 on ^C (what was done is reported)."
    )
    target = parser.add_argument_group("target")
    target.add_argument(
        "--url", default=_DEFAULTS.url, help="gateway or engine, without /v1 (default: %(default)s)"
    )
    target.add_argument(
        "--engine", metavar="URL", help="engine stand-in behind it whose own lag counts as well"
    )
    target.add_argument("--model", help="model to ask for (default: the first in /v1/models)")
    target.add_argument(
        "--timeout",
        type=float,
        default=_DEFAULTS.timeout_seconds,
        metavar="SECONDS",
        help="time that one request may take, answer included (default: %(default)g)",
    )
    pace = parser.add_argument_group(
        "pace",
        f"Conversations: --concurrency {_DEFAULT_CONCURRENCY} by default; traces: their own times.",
    )
    pace.add_argument(
        "--concurrency", type=int, metavar="N", help="conversations (or requests) held at once"
    )
    pace.add_argument(
        "--rate", type=float, metavar="R", help="start R a second, at random (Poisson) times"
    )
    pace.add_argument("--seconds", type=float, metavar="N", help="start no request after N seconds")
    pace.add_argument("--requests", type=int, metavar="N", help="start at most N requests")
    pace.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of texts, lengths and times; another seed shares no text (default: %(default)s)",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", metavar="FILE", help="write the report as JSON (- for stdout)")
    output.add_argument("--name", metavar="LABEL", help="title of the printed report")
    configure_workload(parser)


def run(args: argparse.Namespace) -> int:
    """Run the load; the exit status is as the help says."""
    try:
        options, workload = _plan(args)
        _check_writable(args.json)
        _raise_file_limit()
        # The plan is long-lived: without this every full collection would walk it, mid-measurement.
        gc.collect()
        gc.freeze()
        report = uvloop.run(_run(options, workload, args))
    except (OptionError, WorkloadError) as error:
        print(f"heliostat load: {error}", file=sys.stderr)
        return 2
    except GatewayError as error:
        print(f"heliostat load: {error}", file=sys.stderr)
        return 1
    _deliver(report, args)
    if report.interrupted:
        return 130
    return 1 if report.failed else 0


def _plan(args: argparse.Namespace) -> tuple[LoadOptions, Workload]:
    if args.rate is not None and args.concurrency is not None:
        raise OptionError("--rate and --concurrency exclude each other")
    if args.time_scale is not None and (args.rate is not None or args.concurrency is not None):
        raise OptionError("--time-scale means nothing where --rate or --concurrency sets the pace")
    workload = choose_workload(args)
    concurrency = args.concurrency
    if concurrency is None and not workload.timed:
        concurrency = _DEFAULT_CONCURRENCY
    if workload.length is None and args.seconds is None and args.requests is None:
        raise OptionError(f"{workload.name} never end: give --seconds or --requests")
    options = LoadOptions(
        url=args.url,
        model=args.model,
        engine_url=args.engine,
        concurrency=concurrency,
        max_requests=args.requests,
        seconds=args.seconds,
        timeout_seconds=args.timeout,
    )
    return options, workload


async def _run(options: LoadOptions, workload: Workload, args: argparse.Namespace) -> LoadReport:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    with progress_display(options, workload, args.name) as on_progress:
        return await run_load(options, workload, on_progress, stop)


def _check_writable(path: str | None) -> None:
    """A report that cannot be written is found out before the run, not after it."""
    if path is None or path == "-":
        return
    try:
        with Path(path).open("a"):
            pass
    except OSError as error:
        raise OptionError(f"--json {path}: {error.strerror}") from error


def _raise_file_limit() -> None:
    """Allow as many connections as the system does: open loops hold one per unanswered request."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _deliver(report: LoadReport, args: argparse.Namespace) -> None:
    text = json.dumps(report.to_json(), indent=2)
    if args.json == "-":
        print_report(report, args.name, sys.stderr)
        print(text)
        return
    print_report(report, args.name, sys.stdout)
    if args.json is not None:
        Path(args.json).write_text(text + "\n", encoding="utf-8")
