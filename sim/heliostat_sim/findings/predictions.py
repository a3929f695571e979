"""What the calibrated simulation makes of each published figure."""

from collections.abc import Iterable, Mapping, Sequence

from heliostat_sim.evaluation import Comparison
from heliostat_sim.findings.campaign import Campaign, means
from heliostat_sim.findings.pushing import pushing_comparison
from heliostat_sim.findings.regional import federated_and_cut, gains
from heliostat_sim.findings.rivals import SKYLB
from heliostat_sim.findings.workloads import paper_comparisons
from heliostat_sim.policies.registry import PolicyName

Range = tuple[float, float]

_THROUGHPUT, _HIT = "throughput_tokens_per_second", "hit_ratio"
_RR, _LL = PolicyName.ROUND_ROBIN.value, PolicyName.LEAST_LOAD.value
_CH, _SGLANG = PolicyName.RING_HASH.value, PolicyName.SGLANG.value
_GKE = PolicyName.GKE.value
_SPP, _BP = PolicyName.SELECTIVE_PUSH_PENDING.value, PolicyName.BLIND_PUSH.value
_SPO = PolicyName.SELECTIVE_PUSH_OUTSTANDING.value
_BASELINES = (_RR, _LL, _CH, _SGLANG, _GKE)


def predictions(campaign: Campaign) -> Mapping[str, Range]:
    """By the key of the published figure: the range over the same workloads and policies."""
    papers = paper_comparisons(campaign)
    chats = [papers["arena"], papers["wildchat"]]
    trees = [papers["tree"], papers["mixed-tree"]]
    pushed = pushing_comparison(campaign)
    together, apart = federated_and_cut(campaign)
    return {
        **{
            f"chat-hit-{key}": _range(_values(chats, _HIT, name))
            for key, name in (("rr", _RR), ("ll", _LL), ("gke", _GKE), ("skylb", SKYLB))
        },
        "chat-tput-ll": _range(_ratios(chats, _THROUGHPUT, _LL)),
        "chat-tput-single": _range(_ratios(chats, _THROUGHPUT, _RR, _CH, _SGLANG)),
        "chat-tput-gke": _range(_ratios(chats, _THROUGHPUT, _GKE)),
        "chat-imbalance-sglang": _range(_values(chats, "imbalance_least_ratio", _SGLANG)),
        "chat-imbalance-ch": _range(_values(chats, "imbalance_least_ratio", _CH)),
        **{
            f"tree-hit-{key}": _range(_values(trees, _HIT, name))
            for key, name in (("rr", _RR), ("ll", _LL), ("skylb", SKYLB))
        },
        "tree-tput-ch": _range(_ratios(trees[:1], _THROUGHPUT, _CH)),
        "tree-tput-ll": _range(_ratios(trees[:1], _THROUGHPUT, _LL)),
        "tree-tput-lowest": _least(_ratios(trees, _THROUGHPUT, _GKE)),
        "ttft-p50": _range(_inverse([*chats, *trees], "ttft_p50_seconds")),
        "ttft-p90": _range(_inverse([*chats, *trees], "ttft_p90_seconds")),
        "headline": _range(_inverse([*chats, *trees], _THROUGHPUT)),
        "push-tput-bp": _one(pushed, _THROUGHPUT, _BP, _SPP),
        "push-tput-spo": _one(pushed, _THROUGHPUT, _SPO, _SPP),
        "push-hit-spp": _range([means(pushed, _HIT)[_SPP]]),
        "push-hit-bp": _range([means(pushed, _HIT)[name] for name in (_BP, _SPO)]),
        "push-ttft": _one(pushed, "ttft_p90_seconds", _BP, _SPP),
        "diurnal-tput": _range(gains(together, apart, SKYLB)),
    }


def _range(values: Iterable[float]) -> Range:
    known = list(values)
    return min(known), max(known)


def _least(values: Iterable[float]) -> Range:
    least = min(values)
    return least, least


def _values(comparisons: Sequence[Comparison], field: str, *names: str) -> list[float]:
    return [means(comparison, field)[name] for comparison in comparisons for name in names]


def _ratios(comparisons: Sequence[Comparison], field: str, *names: str) -> list[float]:
    """The policies' values over SkyLB's."""
    return [
        means(comparison, field)[name] / means(comparison, field)[SKYLB]
        for comparison in comparisons
        for name in names
    ]


def _inverse(comparisons: Sequence[Comparison], field: str) -> list[float]:
    """SkyLB's values over the baselines'."""
    return [1 / ratio for ratio in _ratios(comparisons, field, *_BASELINES)]


def _one(comparison: Comparison, field: str, name: str, other: str) -> Range:
    found = means(comparison, field)
    return (found[name] / found[other],) * 2
