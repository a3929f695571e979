"""The two fits that calibrate the simulation, on chats and on trees, both on hit rates alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt

from heliostat_sim.evaluation import Changes
from heliostat_sim.findings.campaign import Campaign, Study, contenders, means
from heliostat_sim.findings.published import PUBLISHED, Published
from heliostat_sim.policies.registry import PolicyName
from heliostat_sim.scenario.scenario import load_scenario
from heliostat_sim.scenario.workload_spec import TreeWorkload

Grid = dict[tuple[int, ...], Changes]

_KV_TOKENS = tuple(range(17_000, 32_000, 2_000))
_SHARED_TOKENS = (300, 500, 700, 900)
_ANSWER_TOKENS = (150, 250, 340)
_SEEDS = 2
_ROUND_ROBIN, _LEAST_LOAD = PolicyName.ROUND_ROBIN.value, PolicyName.LEAST_LOAD.value
_FITTED = contenders(PolicyName.ROUND_ROBIN, PolicyName.LEAST_LOAD)
_BY_KEY = {published.key: published for published in PUBLISHED}
_CHAT = {_ROUND_ROBIN: _BY_KEY["chat-hit-rr"], _LEAST_LOAD: _BY_KEY["chat-hit-ll"]}
_TREE = {_ROUND_ROBIN: _BY_KEY["tree-hit-rr"], _LEAST_LOAD: _BY_KEY["tree-hit-ll"]}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One point of a grid."""

    changes: Changes
    values: tuple[int, ...]
    """What is tried, in the order of the grid's axes."""
    hits: Mapping[str, tuple[float, float]]
    """By policy: the lower and the higher hit rate of the two workloads."""
    error: float
    """Root mean square of the logarithms of simulated over published."""


def chat_fit(campaign: Campaign) -> list[Candidate]:
    """KV capacities, on both chats at once."""
    grid: Grid = {(kv,): (f"engine.kvTokens={kv}",) for kv in _KV_TOKENS}
    return _candidates(campaign, grid, ("arena", "wildchat"), _CHAT)


def tree_fit(campaign: Campaign) -> list[Candidate]:
    """Lengths of the shared part and of answers, on both tree workloads at once."""
    grid: Grid = {
        (shared, answer): (
            f"workload.sharedTokens={shared}",
            f"workload.answerTokens={{mean: {answer}, deviation: {answer * 2 // 5}, max: 512}}",
        )
        for answer in _ANSWER_TOKENS
        for shared in _SHARED_TOKENS
    }
    return _candidates(campaign, grid, ("tree-of-thoughts", "mixed-tree"), _TREE)


def best(candidates: Sequence[Candidate]) -> Candidate:
    """The least error."""
    return min(candidates, key=lambda candidate: candidate.error)


def chosen_kv_tokens() -> int:
    """The capacity that the paper's scenarios have."""
    return load_scenario("arena").settings().profile.kv_tokens


def chosen_tree_tokens() -> tuple[int, int]:
    """The shared part and the mean answer that the tree scenarios have."""
    workload = load_scenario("tree-of-thoughts").spec.workload
    if not isinstance(workload, TreeWorkload) or workload.answer_tokens is None:
        raise TypeError("the scenario tree-of-thoughts does not say how long its answers are")
    return workload.shared_tokens, workload.answer_tokens.mean


def _candidates(
    campaign: Campaign,
    grid: Grid,
    scenarios: Sequence[str],
    published: Mapping[str, Published],
) -> list[Candidate]:
    studies = [
        Study(scenario, _FITTED, changes, _ROUND_ROBIN, _SEEDS)
        for changes in grid.values()
        for scenario in scenarios
    ]
    found = iter(campaign.compare_all(studies))
    candidates = []
    for values, changes in grid.items():
        by_scenario = [means(next(found), "hit_ratio") for _ in scenarios]
        hits = {name: _ends([hits[name] for hits in by_scenario]) for name in published}
        errors = [
            log(simulated / end)
            for name, target in published.items()
            for simulated, end in zip(hits[name], (target.low, target.high), strict=True)
        ]
        error = sqrt(sum(value * value for value in errors) / len(errors))
        candidates.append(Candidate(changes, values, hits, error))
    return candidates


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return max(1e-6, min(values)), max(1e-6, *values)
