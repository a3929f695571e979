"""Where a region or an engine has more to do than it can: skew, storms, bursts, a slow engine."""

from heliostat_sim.findings.campaign import Campaign, Study
from heliostat_sim.findings.judging import overload_goals
from heliostat_sim.findings.rivals import MAIN, PAIR, policies_table, ratios_table
from heliostat_sim.findings.section import Draft, Section

_SCENARIOS = {
    "skew": "Skew",
    "hot-prefix-storm": "Hot prefix storm",
    "bursts": "Bursts",
    "slow-engine": "Slow engine",
}
_TRACES = {"mooncake": "Mooncake", "azure": "Azure"}
_FIELDS = (
    "throughput_tokens_per_second",
    "ttft_p50_seconds",
    "ttft_p90_seconds",
    "ttft_p99_seconds",
    "e2e_p90_seconds",
    "hit_ratio",
    "good_requests_per_second",
)


def overload(campaign: Campaign) -> Section:
    """Open-loop chats, and traces where there are any."""
    draft = Draft("Overload and skew")
    draft.say(
        """Chats arrive by themselves, whatever the system does. Throughput is then what is asked
        for, as long as the policy keeps up: no policy can exceed the demand."""
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
        draft.table(policies_table(comparison, titles[name]))
        if name != "azure":
            draft.goals(overload_goals(name, titles[name], comparison))
    draft.heading("Heliostat against SkyLB")
    by_words = {titles[name]: comparison for name, comparison in found.items()}
    draft.table(ratios_table(by_words, _FIELDS))
    return draft.done()
