"""What the routers say of the endpoints: the only ones who know which requests are still open."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from heliostat_operator.observed.pod import PodView

REPORT_TIMEOUT_SECONDS = 2.0
SHARED_SECONDS = 0.5
"""How long one round of reports serves all pools that drain at the same time."""


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """One router's view of one endpoint; phase is ready, starting or draining."""

    phase: str
    inflight: int


Report = Mapping[str, EndpointReport]
"""One router's view of all its endpoints, by `ip:port`."""


@dataclass(frozen=True, slots=True)
class Reports:
    """One round: a report per router, None of a router that did not answer or is not synced."""

    routers: tuple[Report | None, ...]

    def inflight(self, address: str) -> int | None:
        """Requests open over all routers; None where a router's share is not known."""
        if any(report is None for report in self.routers):
            return None
        found = (report.get(address) for report in self.routers if report is not None)
        return sum(endpoint.inflight for endpoint in found if endpoint is not None)

    def drained(self, address: str) -> bool:
        """Whether every router sends nothing new there and has nothing open there."""
        for report in self.routers:
            if report is None:
                return False
            endpoint = report.get(address)
            if endpoint is not None and (endpoint.phase != "draining" or endpoint.inflight):
                return False
        return True


def parse_report(answer: Any) -> Report | None:
    """Read a router's answer; None where it is not synced, or no answer of a router."""
    if not isinstance(answer, Mapping) or not answer.get("synced"):
        return None
    endpoints = answer.get("endpoints")
    if not isinstance(endpoints, Mapping):
        return None
    report: dict[str, EndpointReport] = {}
    for address, found in endpoints.items():
        if not isinstance(found, Mapping) or not isinstance(found.get("inflight"), int):
            return None
        report[str(address)] = EndpointReport(str(found.get("phase")), found["inflight"])
    return report


def routers_to_ask(pods: Iterable[PodView]) -> tuple[str, ...]:
    """Choose the routers that may hold requests: pods with an address that have not ended.

    One that is being deleted counts while it is there, one that never started does not.
    """
    return tuple(
        sorted(
            pod.ip
            for pod in pods
            if pod.ip is not None and not pod.finished and any(c.running for c in pod.containers)
        )
    )


class RouterReports:
    """Asks all routers at once, at most once per SHARED_SECONDS."""

    def __init__(self, session: aiohttp.ClientSession, admin_port: int) -> None:
        self._session = session
        self._admin_port = admin_port
        self._asked: tuple[str, ...] | None = None
        self._asked_at = 0.0
        self._round: asyncio.Task[Reports] | None = None

    async def fetch(self, addresses: Sequence[str]) -> Reports:
        """Give what the routers at these IP addresses say, not older than SHARED_SECONDS."""
        asked, now = tuple(addresses), time.monotonic()
        current = self._round
        if current is None or asked != self._asked or now - self._asked_at >= SHARED_SECONDS:
            self._asked, self._asked_at = asked, now
            current = self._round = asyncio.create_task(self._fetch_all(asked))
        return await asyncio.shield(current)

    async def _fetch_all(self, addresses: Sequence[str]) -> Reports:
        return Reports(tuple(await asyncio.gather(*(self._fetch(it) for it in addresses))))

    async def _fetch(self, address: str) -> Report | None:
        return parse_report(
            await ask_router(self._session, address, self._admin_port, "/endpoints")
        )


async def ask_router(session: aiohttp.ClientSession, address: str, port: int, path: str) -> Any:
    """Give the JSON that a router's admin port answers; None where it does not."""
    host = f"[{address}]" if ":" in address else address
    limits = aiohttp.ClientTimeout(total=REPORT_TIMEOUT_SECONDS)
    try:
        async with session.get(f"http://{host}:{port}{path}", timeout=limits) as response:
            return await response.json(content_type=None) if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None
