"""What the prompts of different conversations share: heads that nest, world, region, user.

Published similarities of prompts say how much requests have in common within a user, within a
region and worldwide. Heads that nest reproduce all three: whoever shares the user's head shares the
region's before it, and the world's before that.
"""

from dataclasses import dataclass
from random import Random

from xxhash import xxh3_64_intdigest

from heliostat_sim.world.chain import TokenChain


@dataclass(frozen=True, slots=True)
class HeadSettings:
    """How long the shared heads are, and how many conversations begin with them."""

    world_tokens: int = 0
    region_tokens: int = 0
    user_tokens: int = 0
    world_ratio: float = 1.0
    """The share of conversations that begin with the world's head."""
    region_ratio: float = 1.0
    """The share that goes on with their region's; those of the world's at most."""
    user_ratio: float = 1.0
    """The share that goes on with one of their user's; those of the region's at most."""
    heads_per_user: int = 1
    """Each user draws evenly among so many of their own."""

    @property
    def mean_tokens(self) -> float:
        """Of a conversation's head."""
        return (
            self.world_tokens * self.world_ratio
            + self.region_tokens * self.region_ratio
            + self.user_tokens * self.user_ratio
        )


class Heads:
    """Begins conversations. A head's text depends on the seed and its place alone."""

    def __init__(self, settings: HeadSettings, key: str, block_tokens: int) -> None:
        self._settings = settings
        self._key = key
        self._block_tokens = block_tokens
        self._chains: dict[tuple[str, int, int], TokenChain] = {}

    def begin(self, rng: Random, region: str, user: int) -> TokenChain:
        """A new chain that begins with a drawn head, or with none."""
        settings, drawn = self._settings, rng.random()
        head = rng.randrange(settings.heads_per_user)
        if drawn >= settings.world_ratio:
            return TokenChain(self._block_tokens)
        if drawn >= settings.region_ratio:
            return self._chain("", -1, 0).fork()
        if drawn >= settings.user_ratio:
            return self._chain(region, -1, 0).fork()
        return self._chain(region, user, head).fork()

    def _chain(self, region: str, user: int, head: int) -> TokenChain:
        place = (region, user, head)
        chain = self._chains.get(place)
        if chain is None:
            chain = self._chains[place] = self._made(region, user, head)
        return chain

    def _made(self, region: str, user: int, head: int) -> TokenChain:
        settings = self._settings
        if user >= 0:
            chain, tokens = self._chain(region, -1, 0).fork(), settings.user_tokens
        elif region:
            chain, tokens = self._chain("", -1, 0).fork(), settings.region_tokens
        else:
            chain, tokens = TokenChain(self._block_tokens), settings.world_tokens
        chain.add(xxh3_64_intdigest(f"{self._key}/head/{region}/{user}/{head}".encode()), tokens)
        return chain
