"""Asks all routers of the three-region demo how they are, for the view and for who serves whom."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import permutations

import aiohttp

from heliostat_cli.demonstration.sun import REGIONS
from heliostat_cli.demonstration.tally import RECENT_SECONDS, Tally
from heliostat_cli.overview.answers import PeerStatus, RouterStatus
from heliostat_cli.overview.asking import ask

_INTERVAL_SECONDS = 0.5
Pair = tuple[str, str]
_NAMES = tuple(region.name for region in REGIONS)
_PAIRS = tuple(permutations(_NAMES, 2))


@dataclass(slots=True)
class Federation:
    """What the routers last said. Who serves whom is by (clients' region, serving region)."""

    routers: dict[str, RouterStatus | None] = field(
        default_factory=lambda: dict.fromkeys(_NAMES, None)
    )
    """None for one that does not answer."""
    passed_on: dict[Pair, int] = field(default_factory=lambda: dict.fromkeys(_PAIRS, 0))
    """Requests sent to another region and not given back, over all lives of the routers."""
    _seen: dict[Pair, int] = field(default_factory=dict)
    """The same by the routers' own count, which a restart begins anew."""
    _history: deque[tuple[float, dict[Pair, int]]] = field(default_factory=deque)

    def take(self, region: str, status: RouterStatus | None) -> None:
        """Take over an answer, or that there is none."""
        self.routers[region] = status
        for peer in status.peers if status is not None else ():
            pair, kept = (region, peer.region), max(0, peer.sent - peer.refused)
            before = self._seen.get(pair, 0)
            self._seen[pair] = kept
            if pair in self.passed_on:
                self.passed_on[pair] += kept if peer.sent < before else max(0, kept - before)

    def served(self, tally: Tally) -> dict[Pair, int]:
        """Who has served whom up to now."""
        matrix = dict(self.passed_on)
        for name in _NAMES:
            for asked, count in tally.regions[name].elsewhere.items():
                matrix[name, asked] = matrix.get((name, asked), 0) + count
            away = sum(matrix[name, other] for other in _NAMES if other != name)
            matrix[name, name] = max(0, tally.regions[name].served - away)
        return matrix

    def remember(self, tally: Tally, now: float) -> None:
        """Note who has served whom, to tell the last seconds by."""
        self._history.append((now, self.served(tally)))
        while self._history[0][0] < now - RECENT_SECONDS:
            self._history.popleft()

    def recently_served(self, tally: Tally) -> dict[Pair, int]:
        """Who has served whom in the last seconds."""
        before: Mapping[Pair, int] = self._history[0][1] if self._history else {}
        return {
            pair: max(0, count - before.get(pair, 0)) for pair, count in self.served(tally).items()
        }

    def link(self, one: str, other: str) -> PeerStatus | None:
        """How a region sees another; None where it does not say."""
        status = self.routers[one]
        peers = () if status is None else status.peers
        return next((peer for peer in peers if peer.region == other), None)


async def watch_federation(
    admin_urls: Mapping[str, str], federation: Federation, tally: Tally
) -> None:
    """Keep it fresh until cancelled."""
    async with aiohttp.ClientSession() as http:
        while True:
            answers = await asyncio.gather(*(ask(http, url) for url in admin_urls.values()))
            for region, answer in zip(admin_urls, answers, strict=True):
                federation.take(region, answer.status)
            federation.remember(tally, time.perf_counter())
            await asyncio.sleep(_INTERVAL_SECONDS)
