"""Heliostat's own policy: the cheapest endpoint in seconds, waiting for it where that is cheaper.

Among the sensible candidates the lowest predicted cost wins. If the winner is busy the request is
held for it, and decided anew at every event that concerns it. When an endpoint frees, it takes the
request among the oldest few that would lose most by going elsewhere; one past the age bound goes
first, wherever there is room for it. Other regions are candidates at their round trip, their wait
and their prefill; a request goes there where all that comes to less than the best place here.
"""

from math import inf

from heliostat_routing.eligibility import eligible_slots
from heliostat_routing.explanation import Explanation, Explicable
from heliostat_routing.flight import Flight
from heliostat_routing.peers import Remote
from heliostat_routing.policies.candidates import (
    INDIFFERENT_RATIO,
    Costs,
    Scored,
    score_candidates,
)
from heliostat_routing.policies.policy import Choice, Pick, World
from heliostat_routing.pool import Pool
from heliostat_routing.settings import PolicyName


class HeliostatPolicy:
    """Cost in seconds over cache, wait and load."""

    def __init__(self, world: World) -> None:
        self._world = world

    def pick(self, flight: Flight, pool: Pool, eligible: int, now: float) -> Pick:
        """Decide for one request."""
        costs = Costs(flight, pool, now)
        scored = score_candidates(costs, flight, pool, eligible, self._world)
        stay = scored[0]
        remote = self._cheaper_remote(flight, pool, stay.cost_seconds, stay.wait_seconds, now)
        if remote is not None:
            return self._forward(remote, scored, eligible)
        unheld = now >= flight.unheld_at
        takers = (s for s in scored if self._takes(s, flight, now))
        best = next(takers, None) if unheld else scored[0]
        if best is None or not self._takes(best, flight, now):
            explanation = self._explain("hold", None, eligible, scored)
            return Pick((), explanation, scored[0].slot, scored[0].work_seconds)
        rule = "age-bound" if unheld else "least-cost"
        return self._take(rule, best, scored, pool, eligible)

    def leave(
        self, flight: Flight, pool: Pool, eligible: int, queue_seconds: float, now: float
    ) -> tuple[float, Pick] | None:
        """Compare the best region with the best endpoint here, behind the queue."""
        world = self._world
        if not world.peers.by_region:
            return None
        scored: list[Scored] = []
        stay_seconds = wait_seconds = inf
        if eligible:
            costs = Costs(flight, pool, now, queue_seconds)
            scored = score_candidates(costs, flight, pool, eligible, world)
            stay_seconds, wait_seconds = scored[0].cost_seconds, scored[0].wait_seconds
        remote = self._cheaper_remote(flight, pool, stay_seconds, wait_seconds, now)
        if remote is None:
            return None
        return stay_seconds - remote.cost_seconds, self._forward(remote, scored, eligible)

    def _cheaper_remote(
        self, flight: Flight, pool: Pool, stay_seconds: float, wait_seconds: float, now: float
    ) -> Remote | None:
        """The best region, if it is better than staying by more than predictions are good for."""
        peers = self._world.peers
        if not peers.by_region:
            return None
        limit_seconds = stay_seconds / (1 + INDIFFERENT_RATIO)
        return peers.cheapest(flight, pool, now, limit_seconds, wait_seconds)

    def _forward(self, remote: Remote, scored: list[Scored], eligible: int) -> Pick:
        ranked: tuple[Explicable, ...] = (remote, *scored)
        why = Explanation(
            PolicyName.HELIOSTAT, "other-region", remote.account, eligible.bit_count(), ranked
        )
        return Pick((), why, remote=remote)

    def choose(self, window: list[Flight], pool: Pool, slot: int, now: float) -> Choice:
        """Of the highest priority: the oldest past the age bound, else the greatest regret."""
        best: tuple[float, Flight, Scored, list[Scored]] | None = None
        reluctant: list[Flight] = []
        for flight in window:
            if best is not None and flight.request.priority < best[1].request.priority:
                break
            costs = Costs(flight, pool, now)
            here = self._score_here(costs, flight, slot)
            takes, aged = self._takes(here, flight, now), now >= flight.aged_at
            if not takes:
                if aged and flight.reserves == slot:
                    best = None
                    break
                continue
            elsewhere = self._score_elsewhere(costs, flight, pool, slot)
            regret = _regret_seconds(here, elsewhere)
            if aged:
                best = regret, flight, here, elsewhere
                break
            if regret < 0.0:
                reluctant.append(flight)
            elif best is None or regret > best[0]:
                best = regret, flight, here, elsewhere
        if best is None:
            return Choice(None, reluctant)
        _, flight, here, elsewhere = best
        rule = "age-bound" if now >= flight.aged_at else "greatest-regret"
        eligible = eligible_slots(flight, self._world.fleet)
        pick = self._take(rule, here, [here, *elsewhere], pool, eligible)
        return Choice((flight, pick), [])

    def _takes(self, scored: Scored, flight: Flight, now: float) -> bool:
        """Whether the request may go there now; an overdue one need not find room for its KV."""
        if now >= flight.overdue_at:
            return bool(self._world.fleet.available >> scored.slot & 1)
        return scored.available

    def _score_here(self, costs: Costs, flight: Flight, slot: int) -> Scored:
        world, keys = self._world, flight.request.block_keys
        depth = world.index.depth(keys, slot)
        only = depth > 0 and world.index.holders(keys[depth - 1]) == 1 << slot
        return costs.at(world.fleet[slot], depth, only)

    def _score_elsewhere(self, costs: Costs, flight: Flight, pool: Pool, slot: int) -> list[Scored]:
        world = self._world
        others = eligible_slots(flight, world.fleet) & ~(1 << slot)
        return score_candidates(costs, flight, pool, others, world) if others else []

    def _take(
        self, rule: str, winner: Scored, scored: list[Scored], pool: Pool, eligible: int
    ) -> Pick:
        fleet = self._world.fleet
        fleet.rotate(winner.slot)
        others = [s.slot for s in scored if s is not winner][: pool.settings.fallbacks]
        missing = pool.settings.fallbacks - len(others)
        if missing:
            rest = eligible & fleet.serving & ~(1 << winner.slot)
            for slot in others:
                rest &= ~(1 << slot)
            others += [endpoint.slot for endpoint in fleet.least_loaded(rest, missing)]
        return Pick((winner.slot, *others), self._explain(rule, winner, eligible, scored))

    def _explain(
        self, rule: str, winner: Scored | None, eligible: int, scored: list[Scored]
    ) -> Explanation:
        return Explanation(
            policy=PolicyName.HELIOSTAT,
            rule=rule,
            winner=winner.endpoint if winner else None,
            eligible=eligible.bit_count(),
            candidates=scored,
        )


def _regret_seconds(here: Scored, elsewhere: list[Scored]) -> float:
    """What the request loses if it does not go here; nothing if there is no other place."""
    if not elsewhere:
        return 0.0
    return elsewhere[0].cost_seconds - here.cost_seconds
