"""Trees of thought: programs whose requests branch, each child a longer prompt than its parent.

The root asks a question behind instructions and examples that all trees share. When a node's answer
is there, its children are asked at once, each for itself: the node's prompt, its answer, and a
short instruction of the child's own. Depth 4 makes 15 requests with two branches, 85 with four.
Lengths are assumed: questions like those of GSM8K with a few worked examples before them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

from xxhash import xxh3_64_intdigest

from heliostat_sim.workload.conversations import LengthDistribution
from heliostat_sim.workload.session import WorkloadError
from heliostat_sim.world.chain import TokenChain
from heliostat_sim.world.demand import Ask, ClosedClient, Session


@dataclass(frozen=True, slots=True)
class TreeSettings:
    """The shape of the trees."""

    branches: int = 2
    depth: int = 4
    """Levels, the root's included."""
    shared_tokens: int = 500
    """Instructions and examples before every question."""
    question_tokens: LengthDistribution = field(
        default_factory=lambda: LengthDistribution(100, 40, 400)
    )
    instruction_tokens: int = 20
    """What a child's prompt adds to its parent's prompt and answer."""
    answer_tokens: LengthDistribution = field(
        default_factory=lambda: LengthDistribution(150, 60, 512)
    )
    max_output_tokens: int = 512
    think_seconds: float = 0.0
    """Mean of the exponential time before a client's next tree."""

    def __post_init__(self) -> None:
        if not (1 <= self.branches <= 32 and 1 <= self.depth <= 16) or self.nodes > 100_000:
            raise WorkloadError("trees need a branch, a level, and at most 100,000 requests")

    @property
    def nodes(self) -> int:
        """Requests of a tree."""
        return sum(self._width(level) for level in range(self.depth))

    @property
    def inner_nodes(self) -> int:
        """Requests that have children."""
        return self.nodes - self._width(self.depth - 1)

    def _width(self, level: int) -> int:
        return int(self.branches**level)


class TreeSession:
    """One tree. Nodes are numbered level by level from 0, so answers may come in any order.

    The tree is its own user: a policy that hashes users keeps a tree together, and spreads trees.
    """

    __slots__ = ("_answers", "_root", "_settings", "_think_seconds", "user")

    def __init__(self, settings: TreeSettings, shared: TokenChain, rng: Random) -> None:
        self.user = rng.getrandbits(60)
        self._settings = settings
        self._think_seconds = rng.expovariate(1.0) * settings.think_seconds
        self._root = shared.fork()
        self._root.add(self.user, settings.question_tokens.draw_tokens(rng))
        draw, limit = settings.answer_tokens.draw_tokens, settings.max_output_tokens
        self._answers = [min(draw(rng), limit) for _ in range(settings.nodes)]

    def start(self) -> list[Ask]:
        """The root."""
        return [self._ask(self._root, 0, self._think_seconds)]

    def on_answer(self, ask: Ask) -> list[Ask]:
        """The children of the node that was answered."""
        settings, node = self._settings, ask.position
        if node >= settings.inner_nodes:
            return []
        first = settings.branches * node + 1
        return [self._child(ask, child) for child in range(first, first + settings.branches)]

    def _child(self, parent: Ask, node: int) -> Ask:
        chain = parent.chain.fork()
        chain.add(self.user + 2 * node, self._settings.instruction_tokens)
        return self._ask(chain, node, 0.0)

    def _ask(self, chain: TokenChain, node: int, think_seconds: float) -> Ask:
        prompt_tokens, output_tokens = chain.tokens, self._answers[node]
        chain.add(self.user + 2 * node + 1, output_tokens)
        limit = self._settings.max_output_tokens
        return Ask(chain, prompt_tokens, output_tokens, think_seconds, node, limit)


@dataclass(frozen=True, slots=True)
class TreeClients:
    """A region's clients, and the trees that they run."""

    clients: int
    settings: TreeSettings


def tree_clients(
    regions: Mapping[str, TreeClients],
    seed: int,
    *,
    block_tokens: int = 16,
    ramp_seconds: float = 0.0,
) -> tuple[ClosedClient, ...]:
    """Clients that run tree after tree, the first within the ramp."""

    def client(region: str, number: int, settings: TreeSettings) -> ClosedClient:
        rng = Random(f"trees/{seed}/{region}/{number}")  # noqa: S311 - reproducible, not secret
        shared = TokenChain(block_tokens)
        shared.add(xxh3_64_intdigest(f"trees/{seed}/shared".encode()), settings.shared_tokens)
        starts_at = rng.random() * ramp_seconds
        return ClosedClient(region, _endless(settings, shared, rng), starts_at)

    return tuple(
        client(region, number, group.settings)
        for region, group in regions.items()
        for number in range(group.clients)
    )


def _endless(settings: TreeSettings, shared: TokenChain, rng: Random) -> Iterator[Session]:
    while True:
        yield TreeSession(settings, shared, rng)
