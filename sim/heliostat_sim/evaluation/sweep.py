"""Many runs of worlds, over processes: the same results in the same order, however they ran."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from heliostat_sim.evaluation.measurement import Terms, make_report
from heliostat_sim.evaluation.report import Report
from heliostat_sim.evaluation.result_cache import ResultCache
from heliostat_sim.policies.registry import GatewayLayout, ObserverOf
from heliostat_sim.scenario.scenario import Scenario, load_scenario, parse_change
from heliostat_sim.simulation import run_world

Changes = tuple[str, ...]
"""What is different from the scenario's file: `regions.us.engines=4`, and so on."""


class SweepError(Exception):
    """A process died before its run was over."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run: all that its report depends on."""

    scenario: str
    """A name, or the path of a file."""
    policy: str
    seed: int = 0
    changes: Changes = ()
    short: bool = False
    traces: Path | None = None
    """The folder of recorded traces, for scenarios that replay some."""
    terms: Terms = field(default_factory=Terms)
    layout: GatewayLayout | None = None
    """Where the gateways stand; None: as the policy's source has it."""

    @property
    def key(self) -> str:
        """The job in words, equal for equal jobs."""
        return repr(self)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a sweep stands."""

    done: int
    total: int
    job: Job
    """The one that is done."""


Results = dict[Job, Report]
"""In the order in which the jobs were asked for."""


def job_scenario(job: Job) -> Scenario:
    """The scenario that a job runs, with its changes. Raises ScenarioError."""
    scenario = load_scenario(job.scenario)
    if job.short:
        scenario = scenario.shortened()
    return scenario.with_changes(dict(map(parse_change, job.changes)))


def run_job(job: Job, observer_of: ObserverOf | None = None) -> Report:
    """Run one world and measure it; others may look on at Heliostat's routers."""
    scenario = job_scenario(job)
    settings = scenario.settings()
    demand = scenario.demand(job.seed, job.traces)
    records = run_world(settings, demand, job.policy, job.seed, job.layout, observer_of)
    return make_report(
        records,
        settings,
        scenario=scenario.name,
        policy=job.policy,
        seed=job.seed,
        terms=job.terms,
    )


def run_jobs(
    jobs: Iterable[Job],
    processes: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    cache: ResultCache | None = None,
) -> Results:
    """Run all jobs, in as many processes as there are CPUs if not told; 1 means in this one.

    What the cache holds is not run again. An error in a job ends the sweep and is raised.
    """
    ordered = list(dict.fromkeys(jobs))
    found: dict[Job, Report] = {}
    for job, report in _reports(ordered, processes or os.cpu_count() or 1, cache):
        found[job] = report
        if on_progress is not None:
            on_progress(Progress(len(found), len(ordered), job))
    return {job: found[job] for job in ordered}


def _reports(
    jobs: list[Job], processes: int, cache: ResultCache | None
) -> Iterator[tuple[Job, Report]]:
    missing = []
    for job in jobs:
        known = cache.get(job.key) if cache is not None else None
        if known is None:
            missing.append(job)
        else:
            yield job, known
    for job, report in _run(missing, min(processes, len(missing))):
        if cache is not None:
            cache.put(job.key, report)
        yield job, report


def _run(jobs: list[Job], processes: int) -> Iterator[tuple[Job, Report]]:
    if processes <= 1:
        for job in jobs:
            yield job, run_job(job)
        return
    with _executor(processes) as executor:
        waiting: dict[Future[Report], Job] = {executor.submit(run_job, job): job for job in jobs}
        for future in as_completed(waiting):
            try:
                yield waiting[future], future.result()
            except BrokenProcessPool as error:
                raise SweepError("a process died, perhaps for want of memory") from error


@contextmanager
def _executor(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that are gone at the end, also where they have not finished."""
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(processes, mp_context=context, initializer=_let_interrupts_kill)
    others = set(multiprocessing.active_children())
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        executor.shutdown()


def _let_interrupts_kill() -> None:
    """An interrupt from the terminal ends the process without a word: its parent has one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
