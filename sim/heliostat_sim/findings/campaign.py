"""Runs the studies of the evaluation: seeds, caches and progress in one place."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from heliostat_sim.evaluation import (
    Changes,
    Comparison,
    Job,
    Progress,
    Report,
    ResultCache,
    Terms,
    compare,
    run_jobs,
)
from heliostat_sim.policies.registry import GatewayLayout, PolicyName

_SHORT_SECONDS = 120.0
_SHORT_WARMUP_SECONDS = 20.0
_SHORT_SEEDS = 2
_CODE = {True: ("heliostat_routing", "heliostat_sim"), False: ("heliostat_sim",)}
"""What reports depend on, by whether the production router made them."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is run."""

    seeds: int = 5
    short: bool = False
    """Two minutes of virtual time and two seeds: for a look, not for conclusions."""
    traces: Path | None = None
    """The folder of recorded traces; without it the sections that replay them say so."""
    processes: int = 1

    @property
    def seed_count(self) -> int:
        """How many seeds a study has, unless it says otherwise."""
        return min(self.seeds, _SHORT_SEEDS) if self.short else self.seeds

    @property
    def span(self) -> Changes:
        """What a short evaluation changes in every scenario of 600 s."""
        return (f"duration={_SHORT_SECONDS:g}s",) if self.short else ()

    @property
    def terms(self) -> Terms:
        """How runs are measured: whole, unless they are short."""
        return Terms(warmup_seconds=_SHORT_WARMUP_SECONDS) if self.short else Terms()


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy in a layout."""

    policy: PolicyName
    layout: GatewayLayout | None = None
    """None: as the policy's source has it."""
    most_seeds: int | None = None
    """Fewer seeds than the others have, for policies that take long."""

    @property
    def name(self) -> str:
        """As tables name it."""
        return self.policy.value if self.layout is None else f"{self.policy.value}, {self.layout}"


@dataclass(frozen=True, slots=True)
class Study:
    """Contenders in one scenario."""

    scenario: str
    contenders: tuple[Contender, ...]
    changes: Changes = ()
    reference: str = PolicyName.SKYLB.value
    seeds: int | None = None
    """None: as many as the campaign has."""


class Campaign:
    """Runs studies. `tell` gets a line whenever a person may want to know more."""

    def __init__(self, effort: Effort, caches: Path | None, tell: Callable[[str], None]) -> None:
        self.effort = effort
        self.tell = tell
        self._caches: dict[bool, ResultCache] = {}
        self._known: dict[Job, Report] = {}
        self._said_at = 0.0
        if caches is not None:
            caches.mkdir(parents=True, exist_ok=True)
            self._caches = {
                ours: ResultCache(caches / f"{'heliostat' if ours else 'others'}.jsonl", code)
                for ours, code in _CODE.items()
            }

    def compare(self, study: Study) -> Comparison:
        """One study's reports, side by side."""
        return self.compare_all([study])[0]

    def compare_all(self, studies: Sequence[Study]) -> list[Comparison]:
        """The studies' reports, all run together."""
        planned = [self._jobs(study) for study in studies]
        self._run(job for jobs in planned for _, job in jobs)
        return [
            compare((replace(self._known[job], policy=name) for name, job in jobs), study.reference)
            for study, jobs in zip(studies, planned, strict=True)
        ]

    def report(self, scenario: str, policy: PolicyName, *changes: str) -> Report:
        """One run with seed 0."""
        study = Study(scenario, (Contender(policy),), changes, policy.value, seeds=1)
        return self.compare(study).reports[policy.value][0]

    def _jobs(self, study: Study) -> list[tuple[str, Job]]:
        effort = self.effort
        count = effort.seed_count if study.seeds is None else min(study.seeds, effort.seed_count)
        return [
            (contender.name, self._job(study, contender, seed))
            for contender in study.contenders
            for seed in range(min(count, contender.most_seeds or count))
        ]

    def _job(self, study: Study, contender: Contender, seed: int) -> Job:
        effort = self.effort
        return Job(
            scenario=study.scenario,
            policy=contender.policy.value,
            seed=seed,
            changes=(*effort.span, *study.changes),
            traces=effort.traces,
            terms=effort.terms,
            layout=contender.layout,
        )

    def _run(self, jobs: Iterable[Job]) -> None:
        missing = [job for job in dict.fromkeys(jobs) if job not in self._known]
        done = 0
        for ours in (False, True):
            group = [job for job in missing if (job.policy == PolicyName.HELIOSTAT) is ours]
            cache = self._caches.get(ours)
            if group:
                show = partial(self._show, done, len(missing))
                found = run_jobs(group, self.effort.processes, show, cache)
                done += len(group)
                self._known |= {job: _as_cached(report) for job, report in found.items()}

    def _show(self, before: int, total: int, progress: Progress) -> None:
        """Tell how many of all runs are done; `before` were, ahead of this group."""
        now, done = time.monotonic(), before + progress.done
        if done == total or now - self._said_at > 5:
            self._said_at = now
            job = progress.job
            self.tell(f"  {done} of {total} runs: {job.scenario}, {job.policy}")


def _as_cached(report: Report) -> Report:
    """The report as a cache would give it, so that a document never tells where it came from."""
    return Report.from_json(report.to_json())


def contenders(
    *policies: PolicyName, layout: GatewayLayout | None = None, most_seeds: int | None = None
) -> tuple[Contender, ...]:
    """These policies in one layout."""
    return tuple(Contender(policy, layout, most_seeds) for policy in policies)


def means(comparison: Comparison, field: str) -> Mapping[str, float]:
    """The mean over seeds of a report's field, by contender; those without a value are left out."""
    found: dict[str, float] = {}
    for name, by_seed in comparison.reports.items():
        values = [value for r in by_seed.values() if (value := getattr(r, field)) is not None]
        if values:
            found[name] = sum(values) / len(values)
    return found
