"""What one policy is shown on: four fresh engines and a fresh gateway, with nothing cached."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml

from heliostat_cli.demonstration.children import Child, ChildError, run_child
from heliostat_cli.demonstration.scenario import MODEL, Scenario

_POOL = "chat"
_SETTLE_SECONDS = 15.0
_READY_LINE = re.compile(r"Gateway on (\S+), admin on (\S+)")


@dataclass(frozen=True, slots=True)
class Stage:
    """Running engines and gateway."""

    url: str
    """The gateway, for clients."""
    admin_url: str
    engine_addresses: tuple[str, ...]
    children: tuple[Child, ...]

    def check(self) -> None:
        """Raise ChildError if one of the processes has ended."""
        for child in self.children:
            child.check()


@asynccontextmanager
async def run_stage(
    scenario: Scenario, policy: str, port: int, folder: Path
) -> AsyncIterator[Stage]:
    """Run engines and gateway, ready for requests, for as long as the block lasts.

    Raises ChildError where one of them does not start. The folder takes manifests and logs.
    """
    pools = folder / "pools"
    pools.mkdir(exist_ok=True)
    (pools / f"{_POOL}.yaml").unlink(missing_ok=True)
    gateway_arguments = [
        *("gateway", "--pools", str(pools), "--policy", policy),
        *("--port", str(port), "--admin-port", "0"),
        *("--log-level", "error", "--drain-seconds", "1"),
    ]
    async with AsyncExitStack() as stack:
        engines = await stack.enter_async_context(
            run_child("engines", scenario.engine_arguments(), folder)
        )
        gateway = await stack.enter_async_context(run_child("gateway", gateway_arguments, folder))
        addresses = tuple(json.loads(await engines.ready_line())["addresses"])
        _write_manifest(pools, addresses)
        match = _READY_LINE.match(await gateway.ready_line())
        if match is None:
            raise ChildError("the gateway did not say where it listens")
        stage = Stage(match[1], match[2], addresses, (engines, gateway))
        await _until_known(stage)
        yield stage


def _write_manifest(pools: Path, addresses: tuple[str, ...]) -> None:
    manifest = {
        "apiVersion": "heliostat.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": _POOL},
        "spec": {
            "model": {"name": MODEL},
            "endpoints": [{"address": address} for address in addresses],
        },
    }
    draft = pools / f".{_POOL}.yaml"
    draft.write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")
    draft.rename(pools / f"{_POOL}.yaml")


async def _until_known(stage: Stage) -> None:
    """Wait until the router has every endpoint, and each engine's first report."""
    try:
        async with asyncio.timeout(_SETTLE_SECONDS), aiohttp.ClientSession() as http:
            while not await _knows_all(http, stage):
                stage.check()
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise ChildError("the gateway did not find the engines in time") from error


async def _knows_all(http: aiohttp.ClientSession, stage: Stage) -> bool:
    async with http.get(f"{stage.admin_url}/pools") as response:
        pools = (await response.json())["pools"]
    reported = {
        endpoint["address"]
        for pool in pools
        for endpoint in pool["endpoints"]
        if endpoint["running_requests"] is not None
    }
    return reported == set(stage.engine_addresses)
