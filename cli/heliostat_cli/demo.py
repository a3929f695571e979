"""`heliostat demo`: three regions that serve each other, or one region under several policies."""

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path

import uvloop

from heliostat_cli.demonstration.children import ChildError
from heliostat_cli.demonstration.ports import PortError, choose_port
from heliostat_cli.demonstration.single_region import SingleRegionDemo
from heliostat_cli.demonstration.three_regions import ThreeRegionsDemo
from heliostat_cli.loading import GatewayError
from heliostat_routing.settings import PolicyName

_DAY_SECONDS = 40.0
_POLICY_SECONDS = 20.0
_DEFAULT_POLICIES = (PolicyName.ROUND_ROBIN, PolicyName.HELIOSTAT)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.description = (
        "Three regions far apart, each with a real gateway, live through a day in which demand"
        " follows the sun and one of them dies: first each for itself, then federated. With"
        " --single-region: one gateway before four engines, once with each of several policies."
    )
    parser.epilog = (
        "Exit status: 0 if no request failed, 1 if one did or something did not start, 2 on wrong"
        " options, 130 on ^C before the end (what was measured is shown). Requests that are cut"
        " off when a region is killed are counted apart."
    )
    parser.add_argument(
        "--seconds",
        type=_positive_number,
        metavar="N",
        help=f"how long a day lasts (default: {_DAY_SECONDS:g}), or with --single-region, how long"
        f" each policy is sent requests (default: {_POLICY_SECONDS:g})",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the chats (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the reports as JSON (- for stdout)")
    parser.add_argument(
        "--single-region", action="store_true", help="compare policies inside one region"
    )
    group = parser.add_argument_group("with --single-region")
    group.add_argument(
        "--policies",
        type=_policies,
        metavar="A,B",
        help="which, in this order, of " + ", ".join(PolicyName) + " (default: "
        f"{','.join(_DEFAULT_POLICIES)})",
    )
    group.add_argument(
        "--keep", action="store_true", help="keep the last gateway and its engines until ^C"
    )
    group.add_argument(
        "--port", type=int, metavar="PORT", help="the gateway's (default: 8080, else a free one)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo; the exit status is as the help says."""
    problem = _complete(args)
    if problem is not None:
        print(f"heliostat demo: {problem}", file=sys.stderr)
        return 2
    try:
        port = choose_port(args.port) if args.single_region else 0
        return uvloop.run(_run(args, port))
    except (ChildError, GatewayError, PortError, OSError) as error:
        print(f"heliostat demo: {error}", file=sys.stderr)
        return 1


def _complete(args: argparse.Namespace) -> str | None:
    """Fill in defaults that depend on the demo; what is wrong with the options, if anything."""
    if not args.single_region:
        for option in ("policies", "keep", "port"):
            if getattr(args, option) not in (None, False):
                return f"--{option} needs --single-region"
    if args.seconds is None:
        args.seconds = _POLICY_SECONDS if args.single_region else _DAY_SECONDS
    if args.policies is None:
        args.policies = _DEFAULT_POLICIES
    if args.json not in (None, "-"):
        try:
            Path(args.json).touch()
        except OSError as error:
            return f"--json {args.json}: {error.strerror}"
    return None


async def _run(args: argparse.Namespace, port: int) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    with tempfile.TemporaryDirectory(prefix="heliostat-demo-") as name:
        folder = Path(name)
        if args.single_region:
            return await SingleRegionDemo(args, port, folder, stop).run()
        return await ThreeRegionsDemo(args, folder, stop).run()


def _policies(text: str) -> tuple[PolicyName, ...]:
    try:
        policies = tuple(PolicyName(name.strip()) for name in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}: known are {', '.join(PolicyName)}") from error
    if len(set(policies)) < len(policies):
        raise argparse.ArgumentTypeError("each policy once")
    return policies


def _positive_number(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return value
