"""The addresses behind the names of other regions' gateways, looked up again and again.

An answer that fails does not undo the last good one: a region is not gone because its name cannot
be looked up.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address

import structlog

MOST_ADDRESSES = 64
"""Of one region."""
_SHORTEST_WAIT_SECONDS = 1.0

Lookup = Callable[[str, int], Awaitable[tuple[str, ...]]]
"""Finds the IP addresses of a host; OSError where that fails."""

_log = structlog.get_logger(__name__)


async def look_up(host: str, port: int) -> tuple[str, ...]:
    """Ask the system for the IP addresses of a host."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(sorted({str(address[0]) for *_, address in found}))


class Resolver:
    """Follows the addresses of regions; `on_change` hears of all that are known.

    `apply` says what to follow; `hurry` has a region looked up at once, because it is not reached.
    """

    def __init__(
        self,
        on_change: Callable[[Mapping[str, tuple[str, ...]]], None],
        *,
        lookup: Lookup = look_up,
        interval_seconds: float = 5.0,
    ) -> None:
        self._on_change = on_change
        self._lookup = lookup
        self._interval_seconds = interval_seconds
        self._known: dict[str, tuple[str, ...]] = {}
        self._followed: dict[str, tuple[str, asyncio.Task[None], asyncio.Event]] = {}

    @property
    def addresses(self) -> Mapping[str, tuple[str, ...]]:
        """The `ip:port` addresses of each region, as far as they are known."""
        return self._known

    def apply(self, wanted: Mapping[str, str]) -> None:
        """Follow these regions, at `host:port` each, and no others."""
        before = len(self._known)
        for region, (address, task, _) in list(self._followed.items()):
            if wanted.get(region) != address:
                task.cancel()
                del self._followed[region]
                self._known.pop(region, None)
        if len(self._known) < before:
            self._on_change(dict(self._known))
        for region, address in wanted.items():
            if region not in self._followed:
                hurry = asyncio.Event()
                task = asyncio.create_task(self._follow(region, address, hurry))
                self._followed[region] = address, task, hurry

    def hurry(self, region: str) -> None:
        """Look a region up soon."""
        if region in self._followed:
            self._followed[region][2].set()

    def close(self) -> None:
        """Follow nothing any more."""
        for _, task, _ in self._followed.values():
            task.cancel()
        self._followed.clear()

    async def _follow(self, region: str, address: str, hurry: asyncio.Event) -> None:
        host, _, port_text = address.rpartition(":")
        host, port = host.removeprefix("[").removesuffix("]"), int(port_text)
        if _is_ip(host):
            self._take(region, port, (host,))
            return
        failing = False
        while True:
            try:
                self._take(region, port, await self._lookup(host, port))
                failing = False
            except (OSError, UnicodeError) as error:
                if not failing:
                    _log.warning("name not resolved", region=region, host=host, problem=str(error))
                failing = True
            await asyncio.sleep(min(_SHORTEST_WAIT_SECONDS, self._interval_seconds))
            try:
                async with asyncio.timeout(self._interval_seconds - _SHORTEST_WAIT_SECONDS):
                    await hurry.wait()
            except TimeoutError:
                pass
            hurry.clear()

    def _take(self, region: str, port: int, hosts: tuple[str, ...]) -> None:
        addresses = tuple(_joined(host, port) for host in hosts[:MOST_ADDRESSES])
        if addresses and addresses != self._known.get(region):
            self._known[region] = addresses
            self._on_change(dict(self._known))


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
