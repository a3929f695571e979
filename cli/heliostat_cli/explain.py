"""`heliostat explain`: why a request went where it went, as the routers that decided it tell."""

import argparse
import asyncio
import json
import sys

import aiohttp
from rich.console import Console

from heliostat_cli.explaining.asking import Answer, ask_all
from heliostat_cli.explaining.tables import latest, story
from heliostat_cli.status import DEFAULT_URL, admin_url

_MOST = 100
_FILE_WIDTH = 160
"""Columns where nobody looks at a terminal."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = (
        "Exit status: 0 if something was found, 1 if nothing was, or no router has answered, 2 on"
        " wrong options. A router keeps the latest requests only."
    )
    parser.add_argument(
        "request_id",
        nargs="?",
        metavar="REQUEST_ID",
        help="the answer's x-request-id (default: show the latest requests)",
    )
    parser.add_argument(
        "--router",
        action="append",
        type=admin_url,
        default=[],
        metavar="ADMIN_URL",
        help=f"admin port of a router; may be repeated (default: {DEFAULT_URL})",
    )
    parser.add_argument(
        "--most",
        type=int,
        default=10,
        metavar="COUNT",
        help=f"without an id: so many of the latest, {_MOST} at most (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print all that is known as JSON")


def run(args: argparse.Namespace) -> int:
    """Ask, and show; the exit status is as the help says."""
    if not 1 <= args.most <= _MOST:
        print(f"heliostat: --most must be 1 to {_MOST}", file=sys.stderr)
        return 2
    answers = asyncio.run(_ask(args))
    for answer in answers:
        if answer.problem:
            print(f"heliostat: {answer.url}: {answer.problem}", file=sys.stderr)
    found = [told for answer in answers for told in answer.requests]
    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)
    if args.json:
        print(json.dumps({"requests": [told.raw for told in found]}, indent=2))
    elif args.request_id is None:
        console.print(latest(found))
    else:
        for told in found:
            console.print(story(told))
    if not found and not any(answer.problem for answer in answers):
        print("heliostat: no router knows of such a request any more", file=sys.stderr)
    return 0 if found else 1


async def _ask(args: argparse.Namespace) -> list[Answer]:
    async with aiohttp.ClientSession() as http:
        urls = args.router or [DEFAULT_URL]
        return await ask_all(http, urls, args.request_id, args.most)
