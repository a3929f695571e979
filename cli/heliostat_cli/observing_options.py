"""Options on what a router tells of requests: its access log, its traces, and what it keeps."""

import argparse
from pathlib import Path

from heliostat_cli.envoy_options import OptionError
from heliostat_extproc.observing.kept_requests import KeepSettings
from heliostat_extproc.observing.trace_settings import TraceSettings

_MOST_KEPT = 100_000


def add_observing_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    keep, traces = KeepSettings(), TraceSettings("")
    group = parser.add_argument_group("what is told of requests")
    group.add_argument(
        "--access-log",
        type=Path,
        metavar="FILE",
        help="append a JSON object for each request, with its decision; - is standard output"
        " (default: off)",
    )
    group.add_argument(
        "--otlp-collector",
        metavar="HOST:PORT",
        help="tell this OpenTelemetry collector of spans, by OTLP over gRPC in plain text"
        " (default: off)",
    )
    group.add_argument(
        "--trace-sample-ratio",
        type=float,
        default=traces.sample_ratio,
        metavar="RATIO",
        help="with --otlp-collector: share of requests to trace, of those that come without a"
        " trace (default: %(default)s)",
    )
    group.add_argument(
        "--explain-requests",
        type=int,
        default=keep.requests,
        metavar="COUNT",
        help="keep so many of the latest requests for `heliostat explain`, and as many of those"
        " that were held, retried, forwarded or not served (default: %(default)s)",
    )
    group.add_argument(
        "--explain-every",
        type=int,
        default=keep.every,
        metavar="N",
        help="of ordinary requests keep one in N only (default: %(default)s)",
    )


def keep_settings(args: argparse.Namespace) -> KeepSettings:
    """Translate what is kept; OptionError where that makes no sense."""
    if not 0 <= args.explain_requests <= _MOST_KEPT:
        raise OptionError(f"--explain-requests must be 0 to {_MOST_KEPT}")
    if args.explain_every < 1:
        raise OptionError("--explain-every must be 1 or more")
    return KeepSettings(args.explain_requests, args.explain_every)


def trace_settings(args: argparse.Namespace) -> TraceSettings | None:
    """Translate where spans go; OptionError where they cannot go there."""
    if args.otlp_collector is None:
        return None
    host, _, port = args.otlp_collector.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise OptionError(f"--otlp-collector must be HOST:PORT, not {args.otlp_collector!r}")
    if not 0.0 <= args.trace_sample_ratio <= 1.0:
        raise OptionError("--trace-sample-ratio must be from 0 to 1")
    return TraceSettings(args.otlp_collector, args.trace_sample_ratio)
