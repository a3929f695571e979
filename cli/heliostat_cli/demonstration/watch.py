"""Asks router and engines how they are, for the live view; a late answer is only a stale number."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from heliostat_cli.demonstration.stage import Stage
from heliostat_extproc.engine_metrics import MetricsError, parse_engine_metrics
from heliostat_routing.events import EngineMetrics

_INTERVAL_SECONDS = 0.5
_TIMEOUT = aiohttp.ClientTimeout(total=2)


@dataclass(slots=True)
class EndpointState:
    """One engine, by its own word; `inflight` is the router's."""

    address: str
    running_requests: int = 0
    waiting_requests: int = 0
    inflight: int = 0
    cached_ratio: float | None = None
    """Prompt tokens found in its cache, of all it was asked for; None before the first."""
    kv_cache_utilization: float = 0.0


@dataclass(slots=True)
class FleetState:
    """All engines and the router's queue."""

    endpoints: list[EndpointState] = field(default_factory=list)
    queued: int = 0


def read_engine(state: EndpointState, metrics: EngineMetrics) -> None:
    """Take over what an engine reports."""
    state.running_requests = metrics.running_requests
    state.waiting_requests = metrics.waiting_requests
    state.kv_cache_utilization = metrics.kv_cache_utilization
    if metrics.prefix_query_tokens and metrics.prefix_hit_tokens is not None:
        state.cached_ratio = metrics.prefix_hit_tokens / metrics.prefix_query_tokens


def read_pools(fleet: FleetState, pools: list[dict[str, Any]]) -> None:
    """Take over the router's ledger and queue from its `/pools`."""
    fleet.queued = sum(pool["queued"] for pool in pools)
    inflight = {e["address"]: e["inflight"] for pool in pools for e in pool["endpoints"]}
    for endpoint in fleet.endpoints:
        endpoint.inflight = inflight.get(endpoint.address, 0)


async def watch_fleet(stage: Stage, fleet: FleetState) -> None:
    """Keep the state fresh until cancelled."""
    fleet.endpoints = [EndpointState(address) for address in stage.engine_addresses]
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as http:
        while True:
            questions = [_ask_engine(http, endpoint) for endpoint in fleet.endpoints]
            await asyncio.gather(_ask_router(http, stage, fleet), *questions)
            await asyncio.sleep(_INTERVAL_SECONDS)


async def _ask_engine(http: aiohttp.ClientSession, endpoint: EndpointState) -> None:
    with suppress(aiohttp.ClientError, OSError, TimeoutError, MetricsError):
        async with http.get(f"http://{endpoint.address}/metrics") as response:
            read_engine(endpoint, parse_engine_metrics(await response.read()))


async def _ask_router(http: aiohttp.ClientSession, stage: Stage, fleet: FleetState) -> None:
    with suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError):
        async with http.get(f"{stage.admin_url}/pools") as response:
            read_pools(fleet, (await response.json())["pools"])
