"""What the SkyLB paper reports, as ranges over its workloads, and where our runs have the like.

Ratios are to SkyLB's own value. Source: arXiv 2505.24095, its evaluation.
"""

from dataclasses import dataclass
from enum import StrEnum


class Basis(StrEnum):
    """How much a published figure had to do with our inputs."""

    PREDICTED = "predicted"
    """Nothing of ours was chosen by it."""
    FITTED = "fitted"
    """A grid was searched for the least error from it."""
    GUIDED = "guided"
    """An input was chosen by hand with an eye on it."""


@dataclass(frozen=True, slots=True)
class Published:
    """One published figure; a single value is a range of no width."""

    key: str
    words: str
    low: float
    high: float
    basis: Basis = Basis.PREDICTED

    def error(self, low: float, high: float) -> float:
        """The greater relative error of the two ends."""
        return max(abs(low / self.low - 1), abs(high / self.high - 1))


_FITTED, _GUIDED = Basis.FITTED, Basis.GUIDED

MISS_RATIO = 0.15
"""An error above this is a miss."""

PUBLISHED = (
    Published("chat-hit-rr", "chat: hit rate, round robin", 0.108, 0.166, basis=_FITTED),
    Published("chat-hit-ll", "chat: hit rate, least load", 0.283, 0.311, basis=_FITTED),
    Published("chat-hit-gke", "chat: hit rate, GKE", 0.181, 0.243, basis=_GUIDED),
    Published("chat-hit-skylb", "chat: hit rate, SkyLB", 0.370, 0.466, basis=_GUIDED),
    Published("chat-tput-ll", "chat: throughput, least load", 0.974, 0.974),
    Published(
        "chat-tput-single",
        "chat: throughput, round robin, ring hash and SGLang",
        0.83,
        0.89,
    ),
    Published("chat-tput-gke", "chat: throughput, GKE", 0.62, 0.70),
    Published("chat-imbalance-sglang", "chat: load max/min, SGLang", 2.33, 5.08),
    Published("chat-imbalance-ch", "chat: load max/min, ring hash", 2.54, 4.92),
    Published("tree-hit-rr", "trees: hit rate, round robin", 0.587, 0.593, basis=_FITTED),
    Published("tree-hit-ll", "trees: hit rate, least load", 0.587, 0.593, basis=_FITTED),
    Published("tree-hit-skylb", "trees: hit rate, SkyLB", 0.896, 0.900),
    Published("tree-tput-ch", "tree of thoughts: throughput, ring hash", 1.02, 1.02),
    Published("tree-tput-ll", "tree of thoughts: throughput, least load", 0.73, 0.73),
    Published("tree-tput-lowest", "trees: lowest throughput, GKE", 0.485, 0.485),
    Published("ttft-p50", "all four: SkyLB's TTFT p50 over a baseline's", 0.1587, 0.5763),
    Published("ttft-p90", "all four: SkyLB's TTFT p90 over a baseline's", 0.1008, 0.2338),
    Published("headline", "all four: SkyLB's throughput over a baseline's", 1.12, 2.06),
    Published("push-tput-bp", "pushing: throughput, blind over SP-P", 0.79, 0.79, basis=_GUIDED),
    Published("push-tput-spo", "pushing: throughput, SP-O over SP-P", 0.71, 0.71),
    Published("push-hit-spp", "pushing: hit rate, SP-P", 0.90, 0.90),
    Published("push-hit-bp", "pushing: hit rate, the other variants", 0.69, 0.69),
    Published("push-ttft", "pushing: TTFT p90, blind over SP-P", 18.47, 18.47, basis=_GUIDED),
    Published("diurnal-tput", "day and night: throughput, SkyLB over region-local", 1.07, 1.18),
)
