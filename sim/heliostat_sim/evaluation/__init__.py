"""From records to conclusions: reports, comparisons over seeds, sweeps, tables and plots.

Everything here is a function of the records, so the same scenario, policy and seed give the same
bytes of JSON, Markdown and SVG.
"""

from heliostat_sim.evaluation.comparison import Comparison, compare
from heliostat_sim.evaluation.measurement import Terms, make_report
from heliostat_sim.evaluation.measures import HEADLINES, MEASURES, Measure, measure_named
from heliostat_sim.evaluation.parameter import ParameterSweep, parameter_jobs, sweep_of
from heliostat_sim.evaluation.report import RegionReport, Report
from heliostat_sim.evaluation.result_cache import ResultCache
from heliostat_sim.evaluation.statistics import (
    RatioEstimate,
    Spread,
    paired_ratio,
    quantile,
    spread,
)
from heliostat_sim.evaluation.sweep import (
    Changes,
    Job,
    Progress,
    Results,
    SweepError,
    job_scenario,
    run_job,
    run_jobs,
)
from heliostat_sim.evaluation.table import Table

__all__ = [
    "HEADLINES",
    "MEASURES",
    "Changes",
    "Comparison",
    "Job",
    "Measure",
    "ParameterSweep",
    "Progress",
    "RatioEstimate",
    "RegionReport",
    "Report",
    "ResultCache",
    "Results",
    "Spread",
    "SweepError",
    "Table",
    "Terms",
    "compare",
    "job_scenario",
    "make_report",
    "measure_named",
    "paired_ratio",
    "parameter_jobs",
    "quantile",
    "run_job",
    "run_jobs",
    "spread",
    "sweep_of",
]
