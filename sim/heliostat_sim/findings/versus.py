"""The sections that set all policies side by side on SkyLB's workloads."""

from collections.abc import Sequence

from heliostat_sim.evaluation import Comparison, measure_named
from heliostat_sim.evaluation.measures import number
from heliostat_sim.evaluation.plot import Axis, Bars, bar_chart, distribution, line_chart
from heliostat_sim.findings.campaign import Campaign
from heliostat_sim.findings.judging import paper_goals
from heliostat_sim.findings.rivals import policies_table, ratios_table
from heliostat_sim.findings.section import Draft, Section
from heliostat_sim.findings.workloads import CHATS, TREES, Workload, ideal, yardsticks
from heliostat_sim.policies.bound import Bound
from heliostat_sim.policies.registry import PolicyName

_RATIO_FIELDS = (
    "throughput_tokens_per_second",
    "output_tokens_per_second",
    "hit_ratio",
    "ttft_p50_seconds",
    "ttft_p90_seconds",
    "e2e_p50_seconds",
    "e2e_p90_seconds",
    "time_per_output_token_p90_seconds",
)
_DRAWN = tuple(
    policy.value
    for policy in (
        PolicyName.HELIOSTAT,
        PolicyName.SKYLB,
        PolicyName.CLAIRVOYANT,
        PolicyName.GKE,
        PolicyName.LEAST_LOAD,
        PolicyName.ROUND_ROBIN,
    )
)


def chat(campaign: Campaign) -> Section:
    """Chatbot Arena and WildChat."""
    draft = Draft("Chat")
    draft.say(
        """Closed-loop clients on 8 engines. The paper's clients ask at once; with 5 s of thinking
        between an answer and the next message the engines have less to do. A name with
        `per-region` is a policy of one gateway, run with one in each region for its own engines
        alone; without it the gateway is in the US, as in the paper."""
    )
    return _workloads(campaign, draft, "chat", CHATS)


def trees(campaign: Campaign) -> Section:
    """Tree of thoughts, and mixed trees."""
    draft = Draft("Trees of thought")
    draft.say(
        """Closed-loop clients that run tree after tree on 12 engines; all children of a node are
        asked at once. Lengths of prompts and answers are not published; `Calibration` tells how
        they were chosen."""
    )
    return _workloads(campaign, draft, "trees", TREES)


def _workloads(
    campaign: Campaign, draft: Draft, name: str, workloads: Sequence[Workload]
) -> Section:
    found = campaign.compare_all([workload.study for workload in workloads])
    by_words: dict[str, Comparison] = {}
    for workload, comparison in zip(workloads, found, strict=True):
        bound = ideal(campaign, workload, comparison)
        sticks = yardsticks(campaign, workload, comparison, bound)
        by_words[workload.words] = comparison
        draft.heading(workload.words)
        draft.table(policies_table(comparison, workload.words, _bound_row(bound)))
        draft.say(bound_words(bound))
        if above := above_bound(comparison, bound):
            draft.say(f"**Above the bound with seed 0, which is not expected: {above}.**")
        curve = f"ttft-{workload.key}"
        title = f"Times to first token, {workload.words}"
        draft.picture(curve, title, _curve(comparison, title))
        draft.goals(paper_goals(workload.key, workload.words, comparison, sticks))
    draft.heading("Heliostat against SkyLB")
    draft.table(ratios_table(by_words, _RATIO_FIELDS))
    picture = f"throughput-{name}"
    draft.picture(picture, "Throughput over SkyLB's", _bars(by_words))
    return draft.done()


def bound_words(bound: Bound) -> str:
    """What the bound is made of."""
    what = (
        "clients could ask, each request alone on an engine beside its client"
        if bound.client_requests_per_second < bound.engine_requests_per_second
        else "engines could do, with one infinite cache in common"
    )
    return (
        f"The bound is what the {what}: clients {bound.client_requests_per_second:.2f},"
        f" engines {bound.engine_requests_per_second:.2f} requests/s with"
        f" {bound.batch_requests:.0f} decoding on each. A request's way to an engine and back"
        f" inside its region is counted, and no other."
    )


def above_bound(comparison: Comparison, bound: Bound) -> str:
    """Who exceeds the bound with the seed that it is computed for, and by how much."""
    ratios = {
        name: by_seed[0].throughput_tokens_per_second / bound.tokens_per_second
        for name, by_seed in comparison.reports.items()
        if 0 in by_seed
    }
    return ", ".join(f"{name} {ratio:.3f}x" for name, ratio in ratios.items() if ratio > 1)


def _bound_row(bound: Bound) -> tuple[str, ...]:
    return ("bound", number(bound.tokens_per_second), number(bound.output_tokens_per_second))


def _curve(comparison: Comparison, title: str) -> str:
    curves = {
        name: _mean_curve([r.ttft_curve_seconds for r in comparison.reports[name].values()])
        for name in _DRAWN
        if name in comparison.reports
    }
    greatest = max((curve[-1] for curve in curves.values() if curve), default=1.0)
    least = max(0.01, min((curve[0] for curve in curves.values() if curve), default=0.01))
    x = Axis("Time to first token (s)", logarithmic=True, least=least, greatest=greatest)
    lines = [distribution(name, curve) for name, curve in curves.items()]
    return line_chart(title, x, Axis("Share of requests"), lines)


def _mean_curve(curves: Sequence[Sequence[float]]) -> list[float]:
    return [sum(points) / len(points) for points in zip(*curves, strict=True)]


def _bars(by_words: dict[str, Comparison]) -> str:
    throughput = measure_named("throughput_tokens_per_second")
    series = []
    for name in _DRAWN:
        if name == PolicyName.SKYLB.value:
            continue
        ratios = [
            comparison.ratio(name, throughput) if name in comparison.reports else None
            for comparison in by_words.values()
        ]
        series.append(
            Bars(
                name,
                tuple(ratio.ratio if ratio else None for ratio in ratios),
                tuple(
                    (ratio.low, ratio.high)
                    if ratio and ratio.low is not None and ratio.high is not None
                    else None
                    for ratio in ratios
                ),
            )
        )
    axis = Axis("Throughput over SkyLB's", least=0.0)
    return bar_chart("Throughput over SkyLB's, with 95 % limits", axis, list(by_words), series)
