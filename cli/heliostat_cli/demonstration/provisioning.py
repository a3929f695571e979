"""How many engines the demo's demand needs, apart and federated: the simulator is asked, each time.

The simulated world has the demo's clients, with the very same chats and shifts, its engines and its
round trips. Nothing breaks in it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

from heliostat_cli.demonstration.sun import REGIONS, ROUND_TRIPS, Day
from heliostat_sim.demand.planned import PlannedSession
from heliostat_sim.engine import PROFILES, EngineProfile
from heliostat_sim.policies.registry import PolicyName
from heliostat_sim.simulation import run_world
from heliostat_sim.world.demand import ClosedClient, Demand
from heliostat_sim.world.records import Records
from heliostat_sim.world.settings import Fault, FaultKind, RegionSettings, WorldSettings

OBJECTIVE_SECONDS = 1.0
OBJECTIVE_RATIO = 0.9
"""Of first tokens that come within the objective, in each region."""
_MOST_ENGINES = 8
"""In a region, where the search gives up."""


class CancelledSearchError(Exception):
    """Nobody wants the answer any more."""


@dataclass(frozen=True, slots=True)
class Provisioning:
    """Engines that the demand needs; None where none of the numbers tried is enough."""

    apart: Mapping[str, int | None]
    """For each region, if it has to serve itself."""
    federated: int | None
    """In all regions together, if they serve each other."""

    @property
    def apart_total(self) -> int | None:
        """Of all regions."""
        counts = [count for count in self.apart.values() if count is not None]
        return sum(counts) if len(counts) == len(self.apart) else None


def find_provisioning(day: Day, go_on: Callable[[], bool] = lambda: True) -> Provisioning:
    """Search for the smallest numbers of engines; raises CancelledSearchError if told to stop."""
    apart: dict[str, int] = {}
    for engines in range(1, _MOST_ENGINES + 1):
        found = _attainment(day, dict.fromkeys(_names(), engines), go_on, federated=False)
        for name, ratio in found.items():
            if ratio >= OBJECTIVE_RATIO:
                apart.setdefault(name, engines)
        if len(apart) == len(REGIONS):
            break
    federated = None
    for total in range(len(REGIONS), sum(apart.get(n, _MOST_ENGINES) for n in _names()) + 1):
        found = _attainment(day, _spread(total), go_on, federated=True)
        if min(found.values()) >= OBJECTIVE_RATIO:
            federated = total
            break
    return Provisioning({name: apart.get(name) for name in _names()}, federated)


def _names() -> list[str]:
    return [region.name for region in REGIONS]


def _spread(total: int) -> dict[str, int]:
    share, rest = divmod(total, len(REGIONS))
    return {name: share + (index < rest) for index, name in enumerate(_names())}


def _attainment(
    day: Day, engines: Mapping[str, int], go_on: Callable[[], bool], *, federated: bool
) -> dict[str, float]:
    """For each region, the share of first tokens that come within the objective."""
    if not go_on():
        raise CancelledSearchError
    settings = _world(day, engines, federated=federated)
    demand = Demand(closed=tuple(_clients(day, settings.profile.block_tokens)))
    records = run_world(settings, demand, PolicyName.HELIOSTAT, day.seed)
    return {name: _within(records, name, day.seconds) for name in engines}


def _within(records: Records, region: str, until_seconds: float) -> float:
    waits = [r.ttft_seconds for r in records.requests if r.region == region]
    waits += [
        until_seconds - r.sent_at if r.ttft_seconds is None else r.ttft_seconds
        for r in records.still_open
        if r.region == region and (r.ttft_seconds or until_seconds - r.sent_at > OBJECTIVE_SECONDS)
    ]
    in_time = sum(wait is not None and wait <= OBJECTIVE_SECONDS for wait in waits)
    return in_time / len(waits) if waits else 1.0


def _world(day: Day, engines: Mapping[str, int], *, federated: bool) -> WorldSettings:
    cut = () if federated else tuple(_cut(*pair, day.seconds) for pair in combinations(_names(), 2))
    return WorldSettings(
        regions=tuple(RegionSettings(name, count) for name, count in engines.items()),
        profile=_profile(day),
        round_trips=ROUND_TRIPS,
        duration_seconds=day.seconds,
        faults=cut,
    )


def _profile(day: Day) -> EngineProfile:
    return replace(PROFILES[day.profile], max_running_requests=day.running_requests)


def _cut(one: str, other: str, seconds: float) -> Fault:
    return Fault(FaultKind.LINK, 0.0, seconds + 1.0, one, other)


def _clients(day: Day, block_tokens: int) -> Iterator[ClosedClient]:
    dealt = day.deal_chats()
    for region in REGIONS:
        for number in range(day.peak_clients):
            chats = (PlannedSession(chat, block_tokens) for chat in dealt[region.name, number])
            for starts_at, stops_at in day.shifts(region, number):
                yield ClosedClient(region.name, chats, starts_at, stops_at)
