from collections.abc import Callable
from pathlib import Path

import pytest

from heliostat_sim.evaluation import Job, Progress, Report, ResultCache, run_jobs, sweep
from heliostat_sim.evaluation.result_cache import code_digest

JOBS = [Job("arena", policy, seed) for seed in (1, 0) for policy in ("skylb", "heliostat")]
MakeReport = Callable[..., Report]


@pytest.fixture
def ran(a_report: MakeReport, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that have run, none of which simulates anything."""
    jobs: list[Job] = []

    def run_job(job: Job) -> Report:
        jobs.append(job)
        return a_report(job.policy, job.seed)

    monkeypatch.setattr(sweep, "run_job", run_job)
    return jobs


def test_results_come_in_the_order_of_the_jobs(ran: list[Job]) -> None:
    """Each job runs once, its result stands in its place, and progress counts to the end."""
    seen: list[Progress] = []
    results = run_jobs([*JOBS, JOBS[0]], processes=1, on_progress=seen.append)
    assert list(results) == ran == JOBS
    assert [(report.policy, report.seed) for report in results.values()] == [
        (job.policy, job.seed) for job in JOBS
    ]
    assert [(p.done, p.total) for p in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_sweep_goes_on_where_it_was_cut_off(ran: list[Job], tmp_path: Path) -> None:
    """What the cache's file holds is not run again, and a line cut short is as good as none."""
    path = tmp_path / "cache.jsonl"
    first = run_jobs(JOBS[:2], processes=1, cache=ResultCache(path))
    with path.open("a") as file:
        file.write('{"key": "cut o')
    run_jobs(JOBS[:3], processes=1, cache=ResultCache(path))
    again = run_jobs(JOBS[:3], processes=1, cache=ResultCache(path))
    assert ran == JOBS[:3]
    assert again[JOBS[0]].dumps() == first[JOBS[0]].dumps()
    assert list(again) == JOBS[:3]


def test_other_code_makes_other_results(
    ran: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that other code has made does not count."""
    path = tmp_path / "cache.jsonl"
    run_jobs(JOBS[:1], processes=1, cache=ResultCache(path))
    digest = "heliostat_sim.evaluation.result_cache.code_digest"
    monkeypatch.setattr(digest, lambda _packages: "other")
    run_jobs(JOBS[:1], processes=1, cache=ResultCache(path))
    assert ran == [JOBS[0], JOBS[0]]


def test_the_code_has_one_digest() -> None:
    """The digest of the code is the same each time."""
    assert code_digest() == code_digest()
