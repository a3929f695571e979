"""The world of the three-region demo: who asks when, with what, and how far regions are apart.

Engines: Llama-3.1-8B on an L4 at its own speed, two in each region; each takes 4 requests at once,
so a region serves 8. Answers are short, for two cores have to bear engines, gateways and clients.

Clients: each has one chat after the other and waits for every answer (closed loop). Their number
follows the sun: 18 in the early afternoon, one at night, each region 8 hours after the one before.
18 clients are more than a region serves; the 22 or so that the world has at any time are less than
three serve.

Way: the round trips that the SkyLB paper gives for its regions in Ohio, Tokyo and Frankfurt.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, tee

from heliostat_sim.workload.conversations import (
    ConversationSettings,
    LengthDistribution,
    conversations,
)
from heliostat_sim.workload.session import Session

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
_DAY_HOURS = 24.0
_PEAK_HOUR = 14.0
_STEPS_PER_DAY = 24 * 60


@dataclass(frozen=True, slots=True)
class RegionPlan:
    """One region."""

    name: str
    title: str
    hour_at_start: float
    """The hour of its day when the demo's day begins."""


REGIONS = (
    RegionPlan("us", "US", 8.0),
    RegionPlan("europe", "Europe", 16.0),
    RegionPlan("asia", "Asia", 0.0),
)
ROUND_TRIPS: Mapping[frozenset[str], float] = {
    frozenset(("us", "asia")): 0.134,
    frozenset(("us", "europe")): 0.102,
    frozenset(("asia", "europe")): 0.223,
}
"""In seconds."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A region that dies with all its processes, by shares of the day."""

    region: str = "europe"
    from_ratio: float = 0.5
    restart_ratio: float = 0.6
    """When its processes are started anew; they take a while."""


def _chats() -> ConversationSettings:
    return ConversationSettings(
        groups=8,
        users=48,
        system_tokens=800,
        profile_tokens=60,
        mean_turns=4.0,
        single_turn_ratio=0.25,
        user_tokens=LengthDistribution(100, 60, 400),
        output_tokens=LengthDistribution(24, 12, 72),
        think_seconds=1.0,
        max_context_tokens=3000,
    )


@dataclass(frozen=True, slots=True)
class Day:
    """A day of the demo, which passes in `seconds`."""

    seconds: float
    seed: int = 0
    engines: int = 2
    """In each region."""
    profile: str = "l4-llama-8b"
    running_requests: int = 4
    """That an engine takes at once."""
    peak_clients: int = 18
    """Of one region."""
    night_clients: int = 1
    chats: ConversationSettings = field(default_factory=_chats)
    timeout_seconds: float = 20.0
    """How long one request may take."""
    outage: Outage = field(default_factory=Outage)

    def hour(self, region: RegionPlan, at_seconds: float) -> float:
        """What the clocks show in a region."""
        return (region.hour_at_start + _DAY_HOURS * at_seconds / self.seconds) % _DAY_HOURS

    def clients(self, region: RegionPlan, at_seconds: float) -> int:
        """How many clients a region has at an instant."""
        angle = 2 * math.pi * (self.hour(region, at_seconds) - _PEAK_HOUR) / _DAY_HOURS
        light = ((1 + math.cos(angle)) / 2) ** 2
        return round(self.night_clients + (self.peak_clients - self.night_clients) * light)

    def shifts(self, region: RegionPlan, number: int) -> Iterator[tuple[float, float]]:
        """From when to when a region's client of this number, from 0, is there."""
        began_at: float | None = None
        for step in range(_STEPS_PER_DAY):
            at_seconds = self.seconds * step / _STEPS_PER_DAY
            there = self.clients(region, at_seconds) > number
            if there and began_at is None:
                began_at = at_seconds
            elif not there and began_at is not None:
                yield began_at, at_seconds
                began_at = None
        if began_at is not None:
            yield began_at, self.seconds

    def deal_chats(self) -> dict[tuple[str, int], Iterator[Session]]:
        """For each client, by region and number, its chats without end.

        They are the same for the same seed, and no two clients have one in common.
        """
        places = [(region.name, n) for region in REGIONS for n in range(self.peak_clients)]
        dealt = tee(conversations(self.chats, self.seed), len(places))
        return {
            place: islice(chats, number, None, len(places))
            for number, (place, chats) in enumerate(zip(places, dealt, strict=True))
        }

    def engine_arguments(self) -> list[str]:
        """The command line of a region's engines, without the program."""
        return [
            *("engine", "--port", "0", "--count", str(self.engines), "--model", MODEL),
            *("--profile", self.profile, "--max-num-seqs", str(self.running_requests)),
        ]


def nearest(region: str) -> list[str]:
    """All regions, from this one to the farthest."""
    names = [plan.name for plan in REGIONS]
    return sorted(names, key=lambda name: ROUND_TRIPS.get(frozenset((region, name)), 0.0))


def titles() -> Mapping[str, str]:
    """What regions are called in the view, by name."""
    return {plan.name: plan.title for plan in REGIONS}
