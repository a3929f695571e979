"""`heliostat sim`: simulates regions of engines, and compares the policies that route to them."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from heliostat_cli.loading import OptionError
from heliostat_cli.simulation import evaluate
from heliostat_cli.simulation.catalogue import POLICY_LINES, catalogue
from heliostat_cli.simulation.display import progress_display, regions_table, report_table
from heliostat_cli.simulation.evaluate import FellBehindError
from heliostat_cli.simulation.options import (
    add_record_options,
    add_scenario_options,
    add_sweep_options,
    check_job,
    check_writable,
    chosen_gateway,
    chosen_policies,
    chosen_policy,
    chosen_seeds,
    parse_sweep,
    planned_jobs,
)
from heliostat_cli.simulation.recording import (
    GatewayRecorder,
    ReplayDifferenceError,
    replay_file,
)
from heliostat_extproc.recorder import record_to
from heliostat_routing.errors import RecordingError
from heliostat_sim.evaluation import (
    HEADLINES,
    Job,
    Measure,
    Report,
    ResultCache,
    Results,
    SweepError,
    compare,
    measure_named,
    parameter_jobs,
    run_job,
    run_jobs,
    sweep_of,
)
from heliostat_sim.policies.registry import PolicyName
from heliostat_sim.scenario.scenario import load_scenario, scenario_names
from heliostat_sim.workload.session import WorkloadError

_DEFAULT_MEASURE = "ttft_p90_seconds"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of `heliostat sim`."""
    parser.epilog = (
        "Exit status: 0 on success, 1 if a process died, a replay differs or ratios fell behind,"
        " 2 on wrong options, 130 on ^C."
        " The same scenario, policy and seed give the same numbers everywhere."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list scenarios and policies")
    listing.set_defaults(action=_list)
    _configure_run(actions.add_parser("run", help="run one scenario with one policy and seed"))
    _configure_compare(actions.add_parser("compare", help="compare policies over seeds"))
    _configure_sweep(
        actions.add_parser("sweep", help="compare policies over values of a parameter")
    )
    _configure_replay(actions.add_parser("replay", help="let a recorded router decide again"))
    evaluate.configure(
        actions.add_parser("evaluate", help="write the evaluation, or guard its ratios")
    )


def _configure_run(parser: argparse.ArgumentParser) -> None:
    add_scenario_options(parser)
    parser.add_argument("--policy", default="heliostat", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    _add_changes(parser)
    _add_json(parser)
    add_record_options(parser)
    parser.set_defaults(action=_run)


def _configure_compare(parser: argparse.ArgumentParser) -> None:
    add_scenario_options(parser)
    add_sweep_options(parser)
    _add_changes(parser)
    _add_json(parser)
    parser.set_defaults(action=_compare)


def _configure_sweep(parser: argparse.ArgumentParser) -> None:
    add_scenario_options(parser)
    add_sweep_options(parser)
    parser.add_argument(
        "--set",
        dest="changes",
        action="append",
        required=True,
        metavar="NAME=V1,V2",
        help="values of a parameter, by its dotted name in the scenario; others take one value",
    )
    parser.add_argument(
        "--measure",
        default=_DEFAULT_MEASURE,
        metavar="FIELD",
        help="what --svg shows: a field of the JSON reports (default: %(default)s)",
    )
    _add_json(parser)
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the measure as SVG")
    parser.set_defaults(action=_sweep)


def _configure_replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recording",
        type=Path,
        metavar="FILE",
        help="what --record of `heliostat gateway`, `router` or `sim run` has written",
    )
    parser.set_defaults(action=_replay)


def _add_changes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a parameter by its dotted name in the scenario; may be repeated",
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write all numbers as JSON (- for stdout)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the subcommand; the exit status is as the help says."""
    action: Callable[[argparse.Namespace], None] = args.action
    try:
        action(args)
    except (OptionError, WorkloadError, RecordingError) as error:
        print(f"heliostat sim: {error}", file=sys.stderr)
        return 2
    except (SweepError, ReplayDifferenceError, FellBehindError) as error:
        print(f"heliostat sim: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("heliostat sim: interrupted", file=sys.stderr)
        return 130
    return 0


def _list(_args: argparse.Namespace) -> None:
    scenarios = {name: load_scenario(name).description for name in scenario_names()}
    policies = {policy.value: POLICY_LINES.get(policy, policy.value) for policy in PolicyName}
    for title, entries in (("Scenarios", scenarios), ("Policies", policies)):
        print(f"{title}\n{catalogue(entries)}")


def _run(args: argparse.Namespace) -> None:
    changes = tuple(args.changes)
    (job,) = planned_jobs(args, [chosen_policy(args.policy)], [args.seed], changes)
    check_job(job)
    check_writable("--json", args.json)
    report = _run_recorded(job, args)
    tables = [report_table(report).to_text(), regions_table(report).to_text()]
    _deliver(tables, report.to_json(), args.json)


def _run_recorded(job: Job, args: argparse.Namespace) -> Report:
    gateway = chosen_gateway(job, args.record, args.record_gateway)
    check_writable("--record", args.record)
    with record_to(args.record) as recorder:
        if recorder is None:
            return run_job(job)
        return run_job(job, GatewayRecorder(gateway, recorder))


def _replay(args: argparse.Namespace) -> None:
    try:
        count = replay_file(args.recording)
    except OSError as error:
        raise OptionError(f"{args.recording}: {error.strerror}") from error
    print(f"{count.agreeing} of {count.steps} steps agree")
    count.check(args.recording)


def _compare(args: argparse.Namespace) -> None:
    changes = tuple(args.changes)
    policies, reference = chosen_policies(args.policies, args.reference)
    jobs = planned_jobs(args, policies, chosen_seeds(args.seeds), changes)
    check_job(jobs[0])
    check_writable("--json", args.json)
    results = _run_all(jobs, args)
    comparison = compare(results.values(), reference)
    tables = [comparison.values_table().to_text()]
    if len(policies) > 1:
        tables.append(comparison.ratios_table().to_text())
    _deliver(tables, comparison.to_json(), args.json)


def _sweep(args: argparse.Namespace) -> None:
    changes, (parameter, values) = parse_sweep(args.changes)
    policies, reference = chosen_policies(args.policies, args.reference)
    measure = _chosen_measure(args.measure)
    jobs = planned_jobs(args, policies, chosen_seeds(args.seeds), changes)
    by_value = [parameter_jobs(jobs, parameter, value) for value in values]
    for group in by_value:
        check_job(group[0])
    check_writable("--json", args.json)
    check_writable("--svg", args.svg)
    results = _run_all([job for group in by_value for job in group], args)
    sweep = sweep_of(parameter, values, jobs, results, reference)
    _deliver([sweep.table(shown).to_text() for shown in HEADLINES], sweep.to_json(), args.json)
    if args.svg is not None:
        args.svg.write_text(sweep.chart(measure), encoding="utf-8")


def _chosen_measure(field: str) -> Measure:
    try:
        return measure_named(field)
    except KeyError:
        raise OptionError(f"--measure {field}: no report has such a number") from None


def _run_all(jobs: Sequence[Job], args: argparse.Namespace) -> Results:
    if args.processes < 1:
        raise OptionError(f"--processes must be positive, not {args.processes}")
    check_writable("--cache", args.cache)
    cache = None if args.cache is None else ResultCache(args.cache)
    with progress_display(args.scenario, len(jobs)) as on_progress:
        return run_jobs(jobs, args.processes, on_progress, cache)


def _deliver(tables: Sequence[str], plain: dict[str, Any], path: Path | None) -> None:
    text = json.dumps(plain, indent=2)
    to_stdout = str(path) == "-"
    print("\n".join(tables), end="", file=sys.stderr if to_stdout else sys.stdout)
    if to_stdout:
        print(text)
    elif path is not None:
        path.write_text(text + "\n", encoding="utf-8")
