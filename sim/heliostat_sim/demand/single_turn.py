"""Single questions behind shared heads, cheap enough to make by the million."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from xxhash import xxh3_64_intdigest

from heliostat_sim.world.chain import TokenChain
from heliostat_sim.world.demand import Arrival, Ask

_USER_BITS = 16


@dataclass(frozen=True, slots=True)
class SingleTurnSettings:
    """All questions are alike in length, so that making one costs next to nothing."""

    heads_per_region: int = 8
    """Applications of a region, each with a head of its own."""
    head_tokens: int = 512
    question_tokens: int = 128
    answer_tokens: int = 64


class SingleAsk:
    """A session of one request."""

    __slots__ = ("_ask", "user")

    def __init__(self, user: int, ask: Ask) -> None:
        self.user = user
        self._ask = ask

    def start(self) -> list[Ask]:
        """The request."""
        return [self._ask]

    def on_answer(self, ask: Ask) -> list[Ask]:
        """Nothing follows."""
        return []


def single_turns(
    rates_per_second: Mapping[str, float],
    settings: SingleTurnSettings,
    seed: int,
    until_seconds: float,
    *,
    block_tokens: int = 16,
) -> Iterator[Arrival]:
    """Poisson arrivals in all regions at once, up to the end.

    One process over all regions, each arrival's region drawn by the rates, is the same as a process
    for each region, and needs no merging. Large blocks make it cheaper still.
    """
    rng = Random(f"single-turn/{seed}")  # noqa: S311 - reproducible, not secret
    regions = [region for region, rate in rates_per_second.items() if rate > 0]
    if not regions:
        return
    weights = list(accumulate(rates_per_second[region] for region in regions))
    rate = weights[-1]
    heads = [(region, tuple(_heads(region, settings, seed, block_tokens))) for region in regions]
    heads_each, own_tokens = settings.heads_per_region, settings.question_tokens
    prompt_tokens = settings.head_tokens + own_tokens
    own_tokens += settings.answer_tokens
    draw, gap, bits = rng.random, rng.expovariate, rng.getrandbits
    at = gap(rate)
    while at < until_seconds:
        region, chains = rng.choices(heads, cum_weights=weights)[0]
        chain = chains[int(draw() * heads_each)].fork()
        chain.add(bits(60), own_tokens)
        ask = Ask(chain, prompt_tokens, settings.answer_tokens)
        yield Arrival(at, region, SingleAsk(bits(_USER_BITS), ask))
        at += gap(rate)


def _heads(
    region: str, settings: SingleTurnSettings, seed: int, block_tokens: int
) -> Iterator[TokenChain]:
    for number in range(settings.heads_per_region):
        chain = TokenChain(block_tokens)
        name = xxh3_64_intdigest(f"single-turn/{seed}/{region}/{number}".encode())
        chain.add(name, settings.head_tokens)
        yield chain
