"""Chats that arrive by themselves, and storms in which many of them begin with one hot prefix."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import merge
from operator import attrgetter
from random import Random

from xxhash import xxh3_64_intdigest

from heliostat_sim.demand.arrivals import ArrivalProcess, DayCurve, Poisson, arrival_times
from heliostat_sim.demand.chat import Chats, ChatSession, ChatSettings
from heliostat_sim.workload.session import WorkloadError
from heliostat_sim.world.chain import TokenChain
from heliostat_sim.world.demand import Arrival


@dataclass(frozen=True, slots=True)
class RegionTraffic:
    """How chats begin in a region."""

    rate_per_second: float
    """Chats, not requests: each has as many requests as it has turns."""
    process: ArrivalProcess = field(default_factory=Poisson)
    day: DayCurve | None = None


@dataclass(frozen=True, slots=True)
class Storm:
    """From an instant on, a share of all chats begins with one of a few long prefixes."""

    starts_at: float
    """Until the next storm begins."""
    share_ratio: float
    prefixes: int = 1
    """Each hot chat draws evenly among so many."""
    prefix_tokens: int = 3000

    def __post_init__(self) -> None:
        if not 0 <= self.share_ratio <= 1 or self.prefixes < 1 or self.prefix_tokens < 1:
            raise WorkloadError("a storm needs a share of 0 to 1, a prefix, and tokens in it")


class _Storms:
    """Which hot prefix a chat begins with."""

    def __init__(self, storms: Sequence[Storm], key: str, block_tokens: int) -> None:
        self._storms = sorted(storms, key=attrgetter("starts_at"), reverse=True)
        self._key = key
        self._block_tokens = block_tokens
        self._chains: dict[tuple[float, int], TokenChain] = {}

    def begin(self, rng: Random, at: float) -> TokenChain | None:
        """A chain that begins with a hot prefix, for the storm's share of chats."""
        storm = next((storm for storm in self._storms if storm.starts_at <= at), None)
        if storm is None or rng.random() >= storm.share_ratio:
            return None
        place = (storm.starts_at, rng.randrange(storm.prefixes))
        if place not in self._chains:
            chain = TokenChain(self._block_tokens)
            name = xxh3_64_intdigest(f"{self._key}/hot/{place}".encode())
            chain.add(name, storm.prefix_tokens)
            self._chains[place] = chain
        return self._chains[place].fork()


def open_chats(
    regions: Mapping[str, RegionTraffic],
    settings: ChatSettings,
    kind: str,
    seed: int,
    until_seconds: float,
    *,
    storms: Sequence[Storm] = (),
    block_tokens: int = 16,
) -> Iterator[Arrival]:
    """All regions' chats in the order of their arrival, up to the end."""
    key = f"{kind}/{seed}"
    chats = Chats(settings, key, block_tokens)
    hot = _Storms(storms, key, block_tokens)

    def begun(rng: Random, region: str, at: float) -> ChatSession:
        chain = hot.begin(rng, at)
        if chain is None:
            return chats.draw(rng, region)
        return chats.begin(rng, chats.draw_user(rng, region), chain)

    def region_arrivals(region: str, traffic: RegionTraffic) -> Iterator[Arrival]:
        times_rng = Random(f"{key}/{region}/times")  # noqa: S311 - reproducible, not secret
        rng = Random(f"{key}/{region}/chats")  # noqa: S311 - reproducible, not secret
        times = arrival_times(
            times_rng, traffic.rate_per_second, until_seconds, traffic.process, traffic.day
        )
        return (Arrival(at, region, begun(rng, region, at)) for at in times)

    streams = [region_arrivals(region, traffic) for region, traffic in regions.items()]
    return merge(*streams, key=attrgetter("at"))
