"""How much prompts have in common, as published of real chats, so that made-up ones can be judged.

The similarity of two requests is the length of their prompts' common prefix over the length of the
shorter prompt. That of a set of requests is the mean over all pairs of requests that belong to
*different conversations*: what the turns of one conversation share is the conversation's own affair
and would say more about how many turns there are than about prompts.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

from heliostat_sim.world.demand import Ask, ClosedClient, Session


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request's prompt, and whose it is."""

    region: str
    user: int
    conversation: int
    hashes: Sequence[int]
    """Of its full blocks. Blocks of one token make the similarity exact."""


@dataclass(frozen=True, slots=True)
class Similarity:
    """Mean similarity of pairs of requests of different conversations; 0 where there are none."""

    same_user_ratio: float
    same_region_ratio: float
    """Of different users in one region."""
    across_regions_ratio: float
    across_users_ratio: float
    """Of different users, wherever they are."""


def measured_similarity(prompts: Sequence[Prompt]) -> Similarity:
    """Compare all pairs of prompts; the time grows with the square of their number."""
    sums = [0.0, 0.0, 0.0]
    pairs = [0, 0, 0]
    for one, other in combinations(prompts, 2):
        if one.conversation == other.conversation:
            continue
        group = 2 if one.region != other.region else 1 if one.user != other.user else 0
        shorter = min(len(one.hashes), len(other.hashes))
        if shorter:
            sums[group] += common_blocks(one.hashes, other.hashes) / shorter
            pairs[group] += 1
    return Similarity(
        _mean(sums[0], pairs[0]),
        _mean(sums[1], pairs[1]),
        _mean(sums[2], pairs[2]),
        _mean(sums[1] + sums[2], pairs[1] + pairs[2]),
    )


def common_blocks(one: Sequence[int], other: Sequence[int]) -> int:
    """The leading blocks that two chains share; by bisection, as each hash covers all before it."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[middle - 1] == other[middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low


def asks_of(session: Session) -> Iterator[Ask]:
    """All requests of a session, each answered at once."""
    waiting = session.start()
    while waiting:
        ask = waiting.pop(0)
        yield ask
        waiting.extend(session.on_answer(ask))


def prompts_of(clients: Iterable[ClosedClient], conversations: int) -> list[Prompt]:
    """The prompts of each client's first conversations."""
    prompts: list[Prompt] = []
    number = 0
    for client in clients:
        for session in islice(client.sessions, conversations):
            number += 1
            for ask in asks_of(session):
                full = ask.prompt_tokens // ask.chain.block_tokens
                hashes = tuple(ask.chain.hashes[:full])
                prompts.append(Prompt(client.region, session.user, number, hashes))
    return prompts


def _mean(total: float, count: int) -> float:
    return total / count if count else 0.0
