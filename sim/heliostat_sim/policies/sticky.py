"""llm-d's "sticky until saturated" (token-aware routing).

Source: stay among endpoints whose prefix affinity (matched / prompt) is at least 0.8 until the
least loaded of these has more than tau uncached tokens in flight above the least loaded of all;
then go to that one. With no warm endpoint, the least loaded. tau = R_peak * T_max: R_peak, which is
B / T(B), is the prefill rate at a full token budget B, measured once; T_max is one latency target.

Assumed: T_max = 1 second; a request's uncached tokens count until its first token; equal loads are
told apart by open requests, then by order. The index is a trie of own dispatches, bounded by the
engine's KV capacity as llm-d's is when it tunes itself.
"""

from heliostat_sim.policies.prefill_books import PrefillBooks
from heliostat_sim.policies.prefix_trie import PrefixTrie, prompt_blocks
from heliostat_sim.policies.pushing import PushingBalancer
from heliostat_sim.world.balancer import GatewayPort
from heliostat_sim.world.engine_host import EngineHost
from heliostat_sim.world.request import Request

AFFINITY_RATIO = 0.8
TARGET_SECONDS = 1.0
"""T_max: the wait behind other prompts that is worth a warm cache."""


class StickyUntilSaturated(PushingBalancer):
    """Warm endpoints until they are saturated."""

    def __init__(self, port: GatewayPort) -> None:
        super().__init__(port)
        self._trie = PrefixTrie()
        self._inflight = PrefillBooks()

    def pick(self, request: Request, engines: list[EngineHost]) -> EngineHost:
        """Choose the warm one unless it is saturated."""
        blocks = prompt_blocks(request)
        needed = AFFINITY_RATIO * request.prompt_tokens / request.chain.block_tokens
        warm = [e for e in engines if self._trie.depth(blocks, e.address) >= needed]
        cold = min(engines, key=self._load)
        if not warm:
            return cold
        best = min(warm, key=self._load)
        lead = self._inflight.tokens(best.address) - self._inflight.tokens(cold.address)
        return best if lead <= _saturation_tokens(best) else cold

    def on_dispatched(self, request: Request, engine: EngineHost) -> None:
        """Remember prefix and load."""
        blocks = prompt_blocks(request)
        cached = self._trie.depth(blocks, engine.address) * request.chain.block_tokens
        self._inflight.add(request, engine.address, request.prompt_tokens - cached)
        self._trie.max_blocks = engine.profile.kv_blocks
        self._trie.add(blocks, engine.address)
        self._trie.trim(engine.address)

    def on_first_token(self, request: Request) -> None:
        """Its prompt is computed."""
        self._inflight.release(request)

    def on_finished(self, request: Request) -> None:
        """Strike a request off the books."""
        super().on_finished(request)
        self._inflight.release(request)

    def on_failed(self, request: Request, engine: EngineHost) -> None:
        """Place it anew."""
        self._inflight.release(request)
        super().on_failed(request, engine)

    def on_engines_changed(self) -> None:
        """Forget engines that have left."""
        self._trie.keep_only(engine.address for engine in self.port.engines)
        super().on_engines_changed()

    def _load(self, engine: EngineHost) -> tuple[int, int]:
        return self._inflight.tokens(engine.address), self.open.count(engine.address)


def _saturation_tokens(engine: EngineHost) -> float:
    """tau: what the engine computes in T_max at its full token budget."""
    profile = engine.profile
    budget = profile.max_step_tokens
    return budget / profile.step_seconds(budget, 0, 0) * TARGET_SECONDS
