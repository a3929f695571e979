"""Workloads of the load tool, run in the simulated world: the very same plan of sessions and texts.

Traces are among them. A session's user is told by the first two texts of its first prompt, and the
user's region by the user: in a trace of blocks, what begins alike comes from one region.
"""

from bisect import bisect
from collections.abc import Iterator, Mapping
from itertools import accumulate, islice, tee

from xxhash import xxh3_64_intdigest

from heliostat_sim.workload.session import Session as Plan
from heliostat_sim.workload.session import Turn, Workload, WorkloadError
from heliostat_sim.world.chain import TokenChain
from heliostat_sim.world.demand import Arrival, Ask, ClosedClient, Session

_TELLING_TEXTS = 2
_USERS = 2**64


class PlannedSession:
    """A planned session; an answer of the engine is a text of its own."""

    __slots__ = ("_chain", "_plan", "_turn", "user")

    def __init__(self, plan: Plan, block_tokens: int) -> None:
        self.user = planned_user(plan)
        self._plan = plan
        self._chain = TokenChain(block_tokens)
        self._turn = 0

    def start(self) -> list[Ask]:
        """The first turn, behind the system message."""
        self._chain.extend(self._plan.system)
        return [self._ask(self._plan.turns[0])]

    def on_answer(self, ask: Ask) -> list[Ask]:
        """The next turn, if there is one."""
        self._turn += 1
        turns = self._plan.turns
        return [self._ask(turns[self._turn])] if self._turn < len(turns) else []

    def _ask(self, turn: Turn) -> Ask:
        chain = self._chain
        chain.extend(turn.user)
        prompt_tokens = chain.tokens
        last = turn.user[-1].key if turn.user else ""
        answer = f"{self.user}/{last}/answer/{self._turn}"
        chain.add(xxh3_64_intdigest(answer.encode()), turn.output_tokens)
        return Ask(chain, prompt_tokens, turn.output_tokens, turn.think_seconds, self._turn)


def planned_user(plan: Plan) -> int:
    """Who runs a planned session, as far as its first texts tell."""
    texts = (*plan.system, *plan.turns[0].user)[:_TELLING_TEXTS]
    return xxh3_64_intdigest("\n".join(text.key for text in texts).encode())


def planned_arrivals(
    workload: Workload, region_weights: Mapping[str, float], *, block_tokens: int = 16
) -> Iterator[Arrival]:
    """The sessions of a timed workload, in regions by weight. Raises WorkloadError if untimed."""
    if not workload.timed:
        raise WorkloadError(f"the workload {workload.name} does not say when its sessions start")
    regions = [region for region, weight in region_weights.items() if weight > 0]
    if not regions:
        raise WorkloadError("no region has a weight above 0")
    bounds = list(accumulate(region_weights[region] for region in regions))

    def arrivals() -> Iterator[Arrival]:
        for plan in workload:
            session = PlannedSession(plan, block_tokens)
            place = bisect(bounds, session.user / _USERS * bounds[-1], hi=len(bounds) - 1)
            yield Arrival(plan.at_seconds, regions[place], session)

    return arrivals()


def planned_clients(
    workload: Workload, clients: Mapping[str, int], *, block_tokens: int = 16
) -> tuple[ClosedClient, ...]:
    """The sessions of a workload without times, dealt in turn to closed-loop clients."""
    places = [region for region, count in clients.items() for _ in range(count)]
    sessions: Iterator[Session] = (PlannedSession(plan, block_tokens) for plan in workload)
    dealt = tee(sessions, len(places))
    return tuple(
        ClosedClient(region, islice(mine, number, None, len(places)))
        for number, (region, mine) in enumerate(zip(places, dealt, strict=True))
    )
