"""What Heliostat is worth where its signals are late, lost or wrong, and where things break."""

from collections.abc import Sequence
from dataclasses import dataclass

from heliostat_sim.evaluation import Changes, Comparison, Table
from heliostat_sim.evaluation.measures import duration, number
from heliostat_sim.evaluation.parameter import numbers_of
from heliostat_sim.evaluation.plot import Axis, Line, line_chart
from heliostat_sim.findings.campaign import Campaign, Contender, Study, contenders, means
from heliostat_sim.findings.rivals import OURS, PAIR, SKYLB
from heliostat_sim.findings.section import Draft, Goal, Section
from heliostat_sim.policies.registry import PolicyName

_SEEDS = 3
_ONLY_OURS = contenders(PolicyName.HELIOSTAT)
_SIGNALS, _FAULTS = "skew", ("region-lost", "link-cut", "engine-lost")
_FAULT_WORDS = ("a region lost and back", "a link cut", "an engine lost")


@dataclass(frozen=True, slots=True)
class _Trial:
    """One condition."""

    words: str
    scenario: str
    changes: Changes = ()
    rivals: tuple[Contender, ...] = PAIR

    @property
    def study(self) -> Study:
        reference = SKYLB if self.rivals is PAIR else OURS
        return Study(self.scenario, self.rivals, self.changes, reference, _SEEDS)


_DELAYS = ("0s", "0.2s", "0.5s", "1s", "2s")
_ROUTERS = (1, 2, 8)
_DELAYED = [
    _Trial(f"scrapes {delay} late", _SIGNALS, (f"signals.scrapeDelay={delay}",))
    for delay in _DELAYS
]
_OTHERS = [
    _Trial("20 % of scrapes lost", _SIGNALS, ("signals.scrapeLoss=20%",)),
    _Trial("prefill assumed half as fast", _SIGNALS, ("signals.assumedPrefill=50%",), _ONLY_OURS),
    _Trial("prefill assumed twice as fast", _SIGNALS, ("signals.assumedPrefill=200%",), _ONLY_OURS),
    *(
        _Trial(
            f"{count} router{'s' if count > 1 else ''} in each region",
            _SIGNALS,
            tuple(f"regions.{name}.gateways={count}" for name in ("us", "asia", "eu")),
        )
        for count in _ROUTERS
    ),
]


def robustness(campaign: Campaign) -> Section:
    """Late, lost and wrong signals, several routers, and faults."""
    faults = [
        _Trial(words, name, _earlier(campaign, name))
        for name, words in zip(_FAULTS, _FAULT_WORDS, strict=True)
    ]
    trials = [*_DELAYED, *_OTHERS, *faults]
    found = campaign.compare_all([trial.study for trial in trials])
    draft = Draft("Robustness")
    draft.say(
        f"""Late, lost and wrong signals in `{_SIGNALS}`, {_SEEDS} seeds; then faults, each in its
        own scenario. Sent again: requests whose stream was cut, asked anew by their client. Hung:
        open at the end without a first token, 10 s or more after the deadline. SkyLB assumes no
        prefill rate."""
    )
    draft.table(_table(trials, found))
    delays, _ = numbers_of(_DELAYS) or ([], "")
    for field, name, label in (
        ("ttft_p90_seconds", "robust-delay-ttft", "P90 time to first token (s)"),
        ("throughput_tokens_per_second", "robust-delay-throughput", "Throughput (tokens/s)"),
    ):
        picture = _curve(delays, found[: len(_DELAYS)], field, label)
        draft.picture(name, f"{label} over the age of scrapes", picture)
    gone = sum(
        report.lost + report.hung
        for comparison in found
        for report in comparison.reports[OURS].values()
    )
    failed = sum(
        report.rejected + report.expired
        for comparison in found
        for report in comparison.reports[OURS].values()
    )
    reached = f"{gone} lost or hung ({failed} turned away or expired, all runs together)"
    words = "Robustness: lost or hung requests"
    draft.goals([Goal("robust-lost", words, "0", reached, gone == 0)])
    return draft.done()


def _earlier(campaign: Campaign, name: str) -> Changes:
    """Faults come early enough for a short run to see them and what follows."""
    if not campaign.effort.short:
        return ()
    return ("faults.0.at=40s", "faults.0.lasts=30s") if name in _FAULTS else ()


def _table(trials: Sequence[_Trial], found: Sequence[Comparison]) -> Table:
    rows = []
    for trial, comparison in zip(trials, found, strict=True):
        throughput = means(comparison, "throughput_tokens_per_second")
        waits = means(comparison, "ttft_p90_seconds")
        hits = means(comparison, "hit_ratio")
        ours = comparison.reports[OURS].values()
        rows.append(
            (
                trial.words,
                number(throughput.get(OURS)),
                number(throughput.get(SKYLB)),
                duration(waits.get(OURS)),
                duration(waits.get(SKYLB)),
                f"{hits[OURS]:.1%}",
                str(sum(report.resent for report in ours)),
                str(sum(report.rejected + report.expired for report in ours)),
                str(sum(report.lost for report in ours)),
                str(sum(report.hung for report in ours)),
            )
        )
    header = (
        *("", "throughput", "SkyLB's", "TTFT p90", "SkyLB's", "hit ratio"),
        *("sent again", "turned away", "lost", "hung"),
    )
    return Table(header, tuple(rows), "Heliostat, and SkyLB where it applies")


def _curve(delays: Sequence[float], found: Sequence[Comparison], field: str, label: str) -> str:
    lines = []
    for name in (OURS, SKYLB):
        values = [means(comparison, field)[name] for comparison in found]
        lines.append(Line(name, tuple(zip(delays, values, strict=True))))
    x, y = Axis("Age of a scrape when it comes (s)"), Axis(label, least=0.0)
    return line_chart(f"{label} over the age of scrapes", x, y, lines)
