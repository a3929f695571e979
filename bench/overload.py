"""What a gateway does when it is asked for three times what its engines can serve.

Engine stand-ins and `heliostat gateway` as processes of their own, with one open-loop client. The
load goes through three phases: all that the engines can do (which measures it), three times that,
and a third of it. Told are the goodput while overloaded, how fast and how truthfully what is
refused is told so, how long what is queued waits, the router's memory, and how soon an answer is as
fast as before once the load has dropped.
"""

import argparse
import asyncio
import json
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from heliostat_cli.demonstration.children import Child, run_child
from heliostat_sim.workload.text import TextPart, render_part

MODEL = "chat"
ENGINES = 4
SPEED = 2
PROMPT_TOKENS = 1000
OUTPUT_TOKENS = 16
OVERLOAD = 3.0
QUEUE_LIMIT = 100
QUEUE_TIMEOUT_SECONDS = 10
WARM_SECONDS = 5.0
CALM_CLIENTS = 40


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; instants are of the monotonic clock."""

    asked_at: float
    ended_at: float
    status: int
    reason: str = ""
    retry_after_seconds: float | None = None

    @property
    def seconds(self) -> float:
        """From the request to the end of its answer."""
        return self.ended_at - self.asked_at


class Client:
    """Asks the gateway; every prompt is another."""

    def __init__(self, session: aiohttp.ClientSession, url: str, seed: int) -> None:
        self.answers: list[Answer] = []
        self._session = session
        self._url = f"{url}/v1/chat/completions"
        self._rng = random.Random(seed)
        self._number = 0

    async def ask(self) -> Answer:
        """Ask once and note what came."""
        self._number += 1
        prompt = render_part(TextPart(f"{self._number}", PROMPT_TOKENS)).decode()
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": OUTPUT_TOKENS,
        }
        asked_at = time.monotonic()
        try:
            async with self._session.post(self._url, json=body) as response:
                await response.read()
                headers = response.headers
                retry_after = headers.get("retry-after")
                answer = Answer(
                    asked_at,
                    time.monotonic(),
                    response.status,
                    headers.get("x-heliostat-reason", ""),
                    None if retry_after is None else float(retry_after),
                )
        except (aiohttp.ClientError, TimeoutError):
            answer = Answer(asked_at, time.monotonic(), 0)
        self.answers.append(answer)
        return answer

    async def keep_busy(self, clients: int, seconds: float) -> float:
        """Have so many ask one after the other; give the answers per second."""
        until = time.monotonic() + WARM_SECONDS + seconds

        async def one() -> None:
            while time.monotonic() < until:
                await self.ask()

        await asyncio.gather(*(one() for _ in range(clients)))
        return _rate(self.answers, until - seconds, until)

    async def send(self, rate: float, seconds: float) -> list[asyncio.Task[Answer]]:
        """Send at this rate, at random instants, whatever comes back and whenever it does."""
        at = started = time.monotonic()
        tasks: list[asyncio.Task[Answer]] = []
        while at < started + seconds:
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            tasks.append(asyncio.create_task(self.ask()))
            at += self._rng.expovariate(rate)
        return tasks


async def measure(seconds: float, seed: int) -> dict[str, Any]:
    """Run the three phases and give the figures."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="heliostat-bench-")))
        url, gateway = await _start(stack, folder)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=120),
            )
        )
        client = Client(session, url, seed)
        await _until_served(client)
        capacity = await client.keep_busy(CALM_CLIENTS, seconds / 2)
        calm = await asyncio.gather(*await client.send(capacity / 3, seconds / 4))
        before_kib = _router_kib(gateway.pid)
        started = time.monotonic()
        overloaded = await client.send(OVERLOAD * capacity, seconds)
        ended = time.monotonic()
        after_kib = _router_kib(gateway.pid)
        late = await asyncio.gather(*await client.send(capacity / 3, max(20.0, seconds / 2)))
        over = await asyncio.gather(*overloaded)
    return {
        "capacity_per_second": capacity,
        "calm_p50_seconds": statistics.median(it.seconds for it in calm),
        "overload": _overload(over, started, ended, capacity),
        "router_memory_growth_mib": (after_kib - before_kib) / 1024,
        "recovery_seconds": _recovery(late, ended, calm),
        "answers_by_status": _by_status([*calm, *over, *late]),
    }


async def _start(stack: AsyncExitStack, folder: Path) -> tuple[str, Child]:
    engines = await stack.enter_async_context(
        run_child(
            "engines",
            [
                *("engine", "--port", "0", "--count", str(ENGINES)),
                *("--model", MODEL, "--speed", str(SPEED)),
            ],
            folder,
        )
    )
    addresses = json.loads(await engines.ready_line())["addresses"]
    pools = folder / "pools"
    pools.mkdir()
    manifest = {
        "apiVersion": "heliostat.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": MODEL},
        "spec": {
            "model": {"name": MODEL},
            "endpoints": [{"address": it} for it in addresses],
            "routing": {"queueLimit": QUEUE_LIMIT, "queueTimeout": f"{QUEUE_TIMEOUT_SECONDS}s"},
        },
    }
    (pools / "pool.yaml").write_text(yaml.safe_dump(manifest), encoding="utf-8")
    port = free_port()
    gateway = await stack.enter_async_context(
        run_child(
            "gateway",
            [
                *("gateway", "--pools", str(pools), "--port", str(port), "--admin-port", "0"),
                *("--log-level", "error", "--drain-seconds", "1"),
            ],
            folder,
        )
    )
    await gateway.ready_line()
    return f"http://127.0.0.1:{port}", gateway


def free_port() -> int:
    """A port of the loopback interface that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _until_served(client: Client) -> None:
    async with asyncio.timeout(60):
        while (await client.ask()).status != 200:  # noqa: ASYNC110 - an answer is asked for
            await asyncio.sleep(0.1)


def _overload(
    answers: list[Answer], started: float, ended: float, capacity: float
) -> dict[str, Any]:
    """The figures of the overloaded phase, its start left out: the queue fills in it."""
    refused = [it for it in answers if it.status == 429]
    if not refused:
        raise SystemExit(f"nothing was refused: {_by_status(answers)}, capacity {capacity:.1f}/s")
    full_at = min(it.ended_at for it in refused)
    served = [it for it in answers if it.status == 200]
    drain_seconds = QUEUE_LIMIT / _rate(served, full_at, ended)
    milliseconds = sorted(1000 * it.seconds for it in refused)
    return {
        "goodput_of_capacity": _rate(served, full_at, ended) / capacity,
        "queue_full_after_seconds": full_at - started,
        "refused": len(refused),
        "refused_p50_ms": statistics.median(milliseconds),
        "refused_p99_ms": milliseconds[int(0.99 * (len(milliseconds) - 1))],
        "retry_after_p50_seconds": statistics.median(
            it.retry_after_seconds or 0.0 for it in refused
        ),
        "queue_drains_in_seconds": drain_seconds,
        "longest_served_seconds": max(it.seconds for it in served),
    }


def _recovery(late: list[Answer], dropped_at: float, calm: list[Answer]) -> float:
    """After how long the last answer came that was slower than nearly all calm ones."""
    usual = 1.5 * max(it.seconds for it in calm)
    slow = [it.asked_at for it in late if it.status != 200 or it.seconds > usual]
    return max(slow, default=dropped_at) - dropped_at


def _rate(answers: Iterable[Answer], begin: float, end: float) -> float:
    """Answers with status 200 per second of this span."""
    return sum(it.status == 200 and begin <= it.ended_at < end for it in answers) / (end - begin)


def _by_status(answers: list[Answer]) -> dict[str, int]:
    found: dict[str, int] = {}
    for it in answers:
        key = f"{it.status} {it.reason}".strip()
        found[key] = found.get(key, 0) + 1
    return found


def _router_kib(pid: int) -> int:
    """Resident memory of the process that holds the router."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def main() -> None:
    """Run it and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0, help="of overload")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=False,
    ).stdout.strip()
    figures = {
        "command": f"bench/overload.py --seconds {args.seconds:g} --seed {args.seed}",
        "commit": commit,
        "machine": f"{platform.machine()}, {platform.python_version()}",
        "overload": asyncio.run(measure(args.seconds, args.seed)),
    }
    text = json.dumps(figures, indent=2)
    if args.json is not None:
        args.json.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
