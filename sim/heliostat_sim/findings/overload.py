"""Where a region or an engine has more to do than it can: skew, storms, bursts, a slow engine."""

from pathlib import Path

from heliostat_sim.evaluation import Comparison, Job, job_scenario
from heliostat_sim.findings.campaign import Campaign, Study
from heliostat_sim.findings.judging import overload_goals
from heliostat_sim.findings.offered import servable_tokens_per_second
from heliostat_sim.findings.rivals import MAIN, PAIR, SKYLB, policies_table, ratios_table
from heliostat_sim.findings.section import Draft, Section

_SCENARIOS = {
    "skew": "Skew",
    "hot-prefix-storm": "Hot prefix storm",
    "bursts": "Bursts",
    "slow-engine": "Slow engine",
}
_TRACES = {"mooncake": "Mooncake", "azure": "Azure"}
LOADS = {
    "skew": """4.16 chats/s in the US, 1.3 times what its engines can take, and 1.52 in each other
        region, so that together they have room for all of it.""",
    "hot-prefix-storm": """2 chats/s a region: near what the engines can take if they have the
        storms' prefixes, and more than that if they compute them each time. Chosen after both had
        been measured at other loads, one seed each: TTFT p90 is 0.90 x SkyLB's at 1.6 chats/s,
        where nothing is short, and 0.98 x at 2.6, where both are saturated.""",
    "bursts": """1.76 chats/s a region in the mean: in a burst 1.2 times what its engines can take,
        so that only other regions can help, and between bursts a fifth of that.""",
    "slow-engine": """3.2 chats/s a region: what twelve whole engines can just take, so that placing
        as before on the one at half speed must show. Chosen after both had been measured at other
        loads, one seed each: TTFT p90 is 0.74 x SkyLB's at 1.44 chats/s and 0.98 x at 2.4.""",
    "mooncake": """Twice the recorded pace, half of it in the US, on two H100 engines a region: set
        by hand, so that long prompts keep the engines busy.""",
    "azure": """The recorded pace, half of it in the US, on four L4 engines a region: prompts share
        nothing, so that only load counts.""",
}
"""Each scenario's load, and why it is that."""
_MORE_FIELDS = ("good_requests_per_second", "still_open")
_FIELDS = (
    "throughput_tokens_per_second",
    "ttft_p50_seconds",
    "ttft_p90_seconds",
    "ttft_p99_seconds",
    "e2e_p90_seconds",
    "hit_ratio",
    "good_requests_per_second",
)


def check_traces(folder: Path) -> None:
    """Find out whether the recorded traces are there. Raises WorkloadError."""
    for name in _TRACES:
        job_scenario(Job(name, SKYLB)).demand(0, folder)


def overload(campaign: Campaign) -> Section:
    """Open-loop chats, and traces where there are any."""
    draft = Draft("Overload and skew")
    draft.say(
        """Chats arrive by themselves, whatever the system does. Throughput is then what is asked
        for, as long as the policy keeps up: no policy can exceed the demand. Each goal names the
        ceiling: all that would be served if each request were alone on an engine with its prompt
        cached, over SkyLB's throughput, with seed 0. An L4 engine takes
        about 0.8 of these chats a second, a figure set by hand."""
    )
    titles = dict(_SCENARIOS)
    if campaign.effort.traces is not None:
        titles |= _TRACES
    else:
        draft.say(
            'The recorded traces of Mooncake and Azure are not run: give `ARGS="--traces DIR"`.'
        )
    studies = [Study(name, MAIN if name in _SCENARIOS else (*PAIR, *MAIN[2:-1])) for name in titles]
    found = dict(zip(titles, campaign.compare_all(studies), strict=True))
    for name, comparison in found.items():
        draft.heading(titles[name])
        draft.say(LOADS[name])
        draft.table(policies_table(comparison, titles[name], more_fields=_MORE_FIELDS))
        if name != "azure":
            ceiling_ratio = _ceiling_ratio(campaign, name, comparison)
            draft.goals(overload_goals(name, titles[name], comparison, ceiling_ratio))
    draft.heading("Heliostat against SkyLB")
    by_words = {titles[name]: comparison for name, comparison in found.items()}
    draft.table(ratios_table(by_words, _FIELDS))
    return draft.done()


def _ceiling_ratio(campaign: Campaign, name: str, comparison: Comparison) -> float:
    """All that can be served with seed 0, over SkyLB's throughput."""
    effort = campaign.effort
    scenario = job_scenario(Job(name, SKYLB, changes=effort.span))
    span = effort.terms.warmup_seconds, scenario.settings().duration_seconds
    most = servable_tokens_per_second(scenario, scenario.demand(0, effort.traces), *span)
    return most / comparison.reports[SKYLB][0].throughput_tokens_per_second
