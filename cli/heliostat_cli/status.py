"""`heliostat status`: one region or the federation, as its routers tell it."""

import argparse
import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from urllib.parse import urlsplit

import aiohttp
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from heliostat_cli.overview.asking import Answer, ask_all
from heliostat_cli.overview.tables import overview, sent_counts

DEFAULT_URL = "http://127.0.0.1:9090"
_WATCH_SECONDS = 1.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = (
        "Exit status: 0 if every router has answered, 1 if one has not, 2 on wrong options. With"
        " --watch it is that of the last look."
    )
    parser.add_argument(
        "urls",
        nargs="*",
        type=admin_url,
        metavar="ADMIN_URL",
        help="admin port of a region's router; several show the federation"
        f" (default: {DEFAULT_URL})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with --watch a line each")
    parser.add_argument("--watch", action="store_true", help="look again every second, until ^C")


def run(args: argparse.Namespace) -> int:
    """Look once, or until ^C; the exit status is as the help says."""
    answers: list[Answer] = []
    with suppress(KeyboardInterrupt):
        asyncio.run(_watch(args, answers) if args.watch else _look(args, answers))
    if not answers:
        return 130
    return 1 if any(answer.status is None for answer in answers) else 0


async def _look(args: argparse.Namespace, last: list[Answer]) -> None:
    async with aiohttp.ClientSession() as http:
        last[:] = await ask_all(http, args.urls or [DEFAULT_URL])
    if args.json:
        print(json.dumps(as_json(last), indent=2))
    else:
        Console().print(overview(last))


async def _watch(args: argparse.Namespace, last: list[Answer]) -> None:
    with _screen() as show:
        async with aiohttp.ClientSession() as http:
            while True:
                earlier = sent_counts(last)
                last[:] = await ask_all(http, args.urls or [DEFAULT_URL])
                if args.json:
                    print(json.dumps(as_json(last)), flush=True)
                else:
                    show(overview(last, earlier))
                await asyncio.sleep(_WATCH_SECONDS)


@contextmanager
def _screen() -> Iterator[Callable[[RenderableType], None]]:
    """What shows a renderable: in place on a terminal, else one after the other."""
    console = Console()
    if not console.is_terminal:
        yield lambda view: console.print(view, Text())
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        yield lambda view: live.update(view, refresh=True)


def as_json(answers: Sequence[Answer]) -> dict[str, object]:
    """The answers as plain data: a problem for each URL that gave no status."""
    return {
        "routers": [
            {"url": answer.url, "problem": answer.problem}
            if answer.status is None
            else {"url": answer.url, **asdict(answer.status)}
            for answer in answers
        ]
    }


def admin_url(text: str) -> str:
    """Read the URL of an admin port."""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise argparse.ArgumentTypeError(f"must be like {DEFAULT_URL}, not {text!r}")
    return url.rstrip("/")
