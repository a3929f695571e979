"""How much regions tell each other, over their number."""

from heliostat_sim.evaluation import Table
from heliostat_sim.evaluation.measures import number
from heliostat_sim.evaluation.plot import Axis, Line, line_chart
from heliostat_sim.findings.campaign import Campaign, Study, contenders
from heliostat_sim.findings.rivals import OURS
from heliostat_sim.findings.section import Draft, Section
from heliostat_sim.policies.registry import PolicyName
from heliostat_sim.world.settings import SignalSettings

_REGIONS = (2, 3, 5, 10, 20, 35, 50)
_SECONDS = 10.0


def exchange(campaign: Campaign) -> Section:
    """State messages and bytes, sent by one region and in all."""
    draft, signals = Draft("State between regions"), SignalSettings()
    draft.say(
        f"""Each region's router tells every other's what it could take, at most every
        {signals.state_interval_seconds * 1000:g} ms and in all at most
        {signals.states_per_second:g} times a second: with more than
        {signals.states_per_second * signals.state_interval_seconds:g} peers each hears less often.
        How much that is depends on the number of regions, not of engines or requests. Bytes are
        estimated from what a message holds, without transport."""
    )
    rows, each, total = [], [], []
    found = campaign.compare_all([_study(campaign, count) for count in _REGIONS])
    for count, comparison in zip(_REGIONS, found, strict=True):
        (report,) = comparison.reports[OURS].values()
        messages = report.messages / report.duration_seconds
        size = report.message_bytes / report.duration_seconds
        each.append((float(count), size / count / 1000))
        total.append((float(count), size / 1000))
        cells = (messages / count, size / count / 1000, size / 1000)
        rows.append((str(count), *map(number, cells)))
    header = ("regions", "messages/s a region", "kB/s a region", "kB/s in all")
    draft.table(Table(header, tuple(rows)))
    axes = Axis("Regions"), Axis("State sent (kB/s)", logarithmic=True)
    lines = [Line("by one region", tuple(each)), Line("in all", tuple(total))]
    picture = line_chart("State between regions", *axes, lines)
    draft.picture("state-exchange", "State sent over the number of regions", picture)
    return draft.done()


def _study(campaign: Campaign, count: int) -> Study:
    """So many regions alike."""
    changes = (
        f"regions.r.count={count}",
        "regions.r.engines=2",
        "regions.r.rate=2/s",
        "sample=1s",
        f"duration={campaign.effort.terms.warmup_seconds + _SECONDS:g}s",
    )
    return Study("scale", contenders(PolicyName.HELIOSTAT), changes, OURS, seeds=1)
