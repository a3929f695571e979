"""What is asked for: a closed-loop workload's mean request with its bound, and open-loop tokens.

Closed clients ask the same whatever a policy does; only how far they get differs. So the requests
are drawn from the demand itself, answered at once, all clients in turn, until as many have been
asked as a run of the clairvoyant or of Heliostat answered.
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice

from heliostat_sim.policies.bound import (
    Bound,
    Load,
    shared_cache_tokens,
    shortest_seconds,
    throughput_bound,
)
from heliostat_sim.scenario.scenario import Scenario
from heliostat_sim.scenario.workload_spec import TreeWorkload
from heliostat_sim.world.demand import Ask, ClosedClient, Demand, Session


def asked(clients: tuple[ClosedClient, ...]) -> Iterator[Ask]:
    """What the clients ask when every answer comes at once, each asking once in its turn."""
    turns = deque((client, deque[tuple[Session, Ask]]()) for client in clients)
    while turns:
        client, waiting = turns.popleft()
        if not waiting:
            session = next(client.sessions, None)
            if session is None:
                continue
            waiting.extend((session, ask) for ask in session.start())
        session, ask = waiting.popleft()
        yield ask
        waiting.extend((session, child) for child in session.on_answer(ask))
        turns.append((client, waiting))


def closed_load(scenario: Scenario, seed: int, requests: int) -> Load:
    """The mean of so many requests, and how many are open at most in the mean of a session."""
    demand = scenario.demand(seed)
    asks = list(islice(asked(demand.closed), max(1, requests)))
    cached, prompts = shared_cache_tokens(asks)
    count = len(asks)
    workload = scenario.spec.workload
    regions = scenario.spec.expanded_regions().values()
    if isinstance(workload, TreeWorkload):
        open_requests = sum(
            (r.clients or 0) * _tree_width(r.branches or workload.branches, workload.depth)
            for r in regions
        )
        think_seconds = 0.0
    else:
        open_requests = float(sum(r.clients or 0 for r in regions))
        think_seconds = sum(ask.think_seconds for ask in asks) / count
    return Load(
        prompt_tokens=prompts / count,
        cached_tokens=cached / count,
        output_tokens=sum(ask.output_tokens for ask in asks) / count,
        open_requests=open_requests,
        think_seconds=think_seconds,
        round_trip_seconds=scenario.settings().within_seconds,
    )


def servable_tokens_per_second(
    scenario: Scenario, demand: Demand, begin_seconds: float, end_seconds: float
) -> float:
    """What can be served of open-loop arrivals: prompt and twice the output, as throughput counts.

    Each request is alone on an engine beside its client, with its prompt cached. So chats go on as
    early as they can, and what even so ends after the span is left out.
    """
    settings = scenario.settings()
    tokens = 0
    for arrival in demand.arrivals:
        if arrival.at >= end_seconds:
            break
        waiting = [(arrival.at, ask) for ask in arrival.session.start()]
        while waiting:
            at, ask = waiting.pop()
            prompt, output = ask.prompt_tokens, ask.output_tokens
            load = Load(prompt, prompt, output, 1.0, round_trip_seconds=settings.within_seconds)
            ended_at = at + ask.think_seconds + shortest_seconds(settings.profile, load)
            if ended_at > end_seconds:
                continue
            if ended_at >= begin_seconds:
                tokens += prompt + 2 * output
            waiting.extend((ended_at, child) for child in arrival.session.on_answer(ask))
    return tokens / (end_seconds - begin_seconds)


def _tree_width(branches: int, depth: int) -> float:
    """Requests of a tree over its levels: what a client has open if all levels take alike."""
    return sum(int(branches**level) for level in range(depth)) / depth


def closed_bound(scenario: Scenario, seed: int, requests: int) -> Bound:
    """The bound on what this workload's clients can get of its engines."""
    settings = scenario.settings()
    engines = sum(region.engines for region in settings.regions)
    return throughput_bound(settings.profile, engines, closed_load(scenario, seed, requests))
