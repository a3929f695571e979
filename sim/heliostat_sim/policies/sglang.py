"""SGLang's router, cache-aware policy (sgl-router, `cache_aware`).

Loads are the router's own open requests. If max - min > balance_abs_threshold and
max > balance_rel_threshold * min, the engine with the fewest open requests. Else the engine of the
longest prefix match in the approximate tree if matched / length > cache_threshold, else the engine
with the smallest tree. The tree learns the prompt at every dispatch; each engine's part is bounded
to 2^24 characters every 60 seconds, least recently used leaves first.

Thresholds are those that SkyLB's evaluation and its port of the policy name (0.5, 32, 1.0001);
later routers ship with others. Where several engines hold the longest match the source takes
whichever its hash map yields first: here the first in the gateway's list.
"""

from heliostat_sim.policies.outstanding import Outstanding
from heliostat_sim.policies.prefix_trie import (
    EVICTION_INTERVAL_SECONDS,
    PrefixTrie,
    prompt_blocks,
)
from heliostat_sim.policies.pushing import PushingBalancer
from heliostat_sim.policies.timer import repeat
from heliostat_sim.world.balancer import GatewayPort
from heliostat_sim.world.engine_host import EngineHost
from heliostat_sim.world.request import Request

BALANCE_ABS_THRESHOLD = 32
BALANCE_REL_THRESHOLD = 1.0001
CACHE_THRESHOLD_RATIO = 0.5


def is_imbalanced(loads: list[int]) -> bool:
    """Whether loads differ so much that they come before the cache."""
    least, most = min(loads), max(loads)
    return most - least > BALANCE_ABS_THRESHOLD and most > BALANCE_REL_THRESHOLD * least


def least_if_imbalanced(load: Outstanding, targets: list[str]) -> str | None:
    """The least loaded target if the loads are imbalanced."""
    if is_imbalanced([load.count(target) for target in targets]):
        return load.least(targets)
    return None


class SglangRouter(PushingBalancer):
    """Shortest queue when imbalanced, else the best match or the smallest tree."""

    def __init__(self, port: GatewayPort) -> None:
        super().__init__(port)
        self._trie = PrefixTrie()

    def start(self) -> None:
        """Evict at intervals."""
        repeat(self.port, EVICTION_INTERVAL_SECONDS, self._trie.evict)

    def pick(self, request: Request, engines: list[EngineHost]) -> EngineHost:
        """Choose by balance, then by match, then by tree size."""
        by_address = {engine.address: engine for engine in engines}
        targets = list(by_address)
        relief = least_if_imbalanced(self.open, targets)
        if relief is not None:
            return by_address[relief]
        depth, holders = self._trie.deepest(prompt_blocks(request), targets)
        if depth * request.chain.block_tokens > CACHE_THRESHOLD_RATIO * request.prompt_tokens:
            return by_address[holders[0]]
        return by_address[min(targets, key=self._trie.blocks)]

    def on_dispatched(self, request: Request, engine: EngineHost) -> None:
        """The tree learns the prompt."""
        self._trie.add(prompt_blocks(request), engine.address)

    def on_engines_changed(self) -> None:
        """Forget the trees of engines that have left."""
        self._trie.keep_only(engine.address for engine in self.port.engines)
        super().on_engines_changed()
