"""SkyLB's workloads as studies, and the yardsticks of each."""

from collections.abc import Mapping
from dataclasses import dataclass

from heliostat_sim.evaluation import Comparison, Job, job_scenario
from heliostat_sim.findings.campaign import Campaign, Contender, Study, means
from heliostat_sim.findings.judging import Yardsticks
from heliostat_sim.findings.offered import closed_bound
from heliostat_sim.findings.rivals import ALL, MAIN, SKYLB
from heliostat_sim.policies.bound import Bound
from heliostat_sim.policies.registry import PolicyName


@dataclass(frozen=True, slots=True)
class Workload:
    """One of the paper's workloads."""

    key: str
    words: str
    scenario: str
    changes: tuple[str, ...] = ()
    contenders: tuple[Contender, ...] = ALL

    @property
    def study(self) -> Study:
        """The contenders on it."""
        return Study(self.scenario, self.contenders, self.changes)


CHATS = (
    Workload("arena", "Arena", "arena"),
    Workload("wildchat", "WildChat", "wildchat"),
    Workload("arena-5s", "Arena, 5 s of thinking", "arena", ("think=5s",), MAIN),
    Workload("wildchat-5s", "WildChat, 5 s of thinking", "wildchat", ("think=5s",), MAIN),
)
TREES = (
    Workload("tree", "Tree of thoughts", "tree-of-thoughts"),
    Workload("mixed-tree", "Mixed trees", "mixed-tree"),
)
PAPERS = (*CHATS[:2], *TREES)
"""The four that the paper's figures are over."""


def ideal(campaign: Campaign, workload: Workload, comparison: Comparison) -> Bound:
    """The bound on a workload, of as many requests as Heliostat served with seed 0."""
    changes = (*campaign.effort.span, *workload.changes)
    job = Job(workload.scenario, PolicyName.HELIOSTAT.value, changes=changes)
    served = comparison.reports[PolicyName.HELIOSTAT.value][0].served
    return closed_bound(job_scenario(job), 0, served)


def yardsticks(
    campaign: Campaign, workload: Workload, comparison: Comparison, bound: Bound
) -> Yardsticks:
    """What the workload's goals are measured with."""
    spec = job_scenario(Job(workload.scenario, SKYLB)).spec
    alone = [f"regions.{name}.clients=1" for name in spec.regions]
    report = campaign.report(workload.scenario, PolicyName.SKYLB, *workload.changes, *alone)
    theirs = means(comparison, "throughput_tokens_per_second")[SKYLB]
    return Yardsticks(bound.tokens_per_second / theirs, report.ttft_p90_seconds or 0.0)


def paper_comparisons(campaign: Campaign) -> Mapping[str, Comparison]:
    """The paper's four workloads by key."""
    found = campaign.compare_all([workload.study for workload in PAPERS])
    return {workload.key: comparison for workload, comparison in zip(PAPERS, found, strict=True)}
