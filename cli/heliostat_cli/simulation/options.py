"""The options that the subcommands of `heliostat sim` share, and what they ask to be run."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from heliostat_cli.loading import OptionError
from heliostat_crds.duration import DurationError, parse_duration
from heliostat_sim.evaluation import Changes, Job, Terms, job_scenario
from heliostat_sim.policies.registry import POLICIES, GatewayLayout, PolicyName
from heliostat_sim.simulation import laid_out

Values = tuple[str, tuple[str, ...]]
"""A dotted name and the values that it takes."""


def add_scenario_options(parser: argparse.ArgumentParser) -> None:
    """What is simulated, and how it is measured."""
    parser.add_argument(
        "scenario", metavar="SCENARIO", help="a name from `heliostat sim list`, or a YAML file"
    )
    parser.add_argument(
        "--short",
        action="store_true",
        help="the scenario's shorter form: checks that it runs, and ranks nothing",
    )
    parser.add_argument(
        "--traces", type=Path, metavar="DIR", help="folder of the traces that the scenario replays"
    )
    parser.add_argument(
        "--layout",
        type=GatewayLayout,
        choices=list(GatewayLayout),
        help="one gateway for all regions, or one in each (default: the policy's own)",
    )
    parser.add_argument(
        "--slo",
        type=seconds_from,
        default=Terms().slo_seconds,
        metavar="TIME",
        help="a first token within it, such as 500ms, is in time (default: %(default)gs)",
    )
    parser.add_argument(
        "--warmup",
        type=seconds_from,
        default=Terms().warmup_seconds,
        metavar="TIME",
        help="leave out this much, such as 30s, at the start (default: %(default)gs)",
    )


def add_record_options(parser: argparse.ArgumentParser) -> None:
    """Which router's decisions are written down, and where."""
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="write what a router is told and decides (heliostat only), for `sim replay`",
    )
    parser.add_argument(
        "--record-gateway",
        metavar="NAME",
        help="the router's gateway, such as us-0 (default: the first)",
    )


def add_sweep_options(parser: argparse.ArgumentParser) -> None:
    """Which policies are compared, over which seeds, and how the runs are spread."""
    parser.add_argument(
        "--policies",
        action="append",
        required=True,
        metavar="A,B",
        help="policies to compare, from `heliostat sim list`; may be repeated",
    )
    parser.add_argument(
        "--reference", metavar="POLICY", help="the one to compare with (default: the first)"
    )
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="seeds 0 to N-1 (default: %(default)s)"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="runs at a time (default: one for each CPU)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="FILE",
        help="keep finished runs in FILE, and do not repeat them",
    )


def seconds_from(text: str) -> float:
    """A time in seconds, from a duration with a unit or from bare seconds."""
    try:
        return parse_duration(f"{text}s" if text[-1:].isdigit() else text)
    except DurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def chosen_policies(lists: Sequence[str], reference: str | None) -> tuple[list[str], str]:
    """The policies to run, the reference among them, and the reference."""
    policies: list[str] = []
    for name in ",".join(lists).split(","):
        policy = chosen_policy(name.strip())
        if policy in policies:
            raise OptionError(f"--policies: {policy!r} is given twice")
        policies.append(policy)
    if reference is None:
        return policies, policies[0]
    reference = chosen_policy(reference)
    return list(dict.fromkeys([reference, *policies])), reference


def chosen_policy(name: str) -> str:
    """The name of a policy that exists."""
    known = [policy.value for policy in PolicyName]
    if name not in known:
        raise OptionError(f"there is no policy {name!r}; there are {', '.join(known)}")
    return name


def parse_sweep(texts: Sequence[str]) -> tuple[Changes, Values]:
    """What is set once for all, and the one parameter that takes several values."""
    swept = [text for text in texts if "," in text]
    if len(swept) != 1:
        raise OptionError("give one --set NAME=V1,V2 with several values, others with one each")
    name, _, values = swept[0].partition("=")
    parsed = tuple(value.strip() for value in values.split(","))
    if not name or not all(parsed):
        raise OptionError(f"--set {swept[0]}: must be NAME=V1,V2")
    return tuple(text for text in texts if text != swept[0]), (name, parsed)


def planned_jobs(
    args: argparse.Namespace, policies: Sequence[str], seeds: Sequence[int], changes: Changes
) -> list[Job]:
    """A job for each policy and seed."""
    try:
        terms = Terms(warmup_seconds=args.warmup, slo_seconds=args.slo)
    except ValueError as error:
        raise OptionError(str(error)) from error
    return [
        Job(args.scenario, policy, seed, changes, args.short, args.traces, terms, args.layout)
        for policy in policies
        for seed in seeds
    ]


def chosen_seeds(count: int) -> range:
    """The seeds 0 to count - 1."""
    if count < 1:
        raise OptionError(f"--seeds must be positive, not {count}")
    return range(count)


def check_job(job: Job) -> None:
    """Find out what is wrong with a scenario or a change before processes are started."""
    duration_seconds = job_scenario(job).settings().duration_seconds
    if job.terms.warmup_seconds >= duration_seconds:
        raise OptionError(
            f"--warmup {job.terms.warmup_seconds:g} leaves nothing of {duration_seconds:g} s"
        )


def chosen_gateway(job: Job, record: Path | None, name: str | None) -> str:
    """The gateway whose router is recorded, where one is."""
    policy = PolicyName(job.policy)
    if record is None:
        if name is not None:
            raise OptionError("--record-gateway means nothing without --record")
    elif policy is not PolicyName.HELIOSTAT:
        raise OptionError(f"--record: {policy} has no router to record, only heliostat has")
    settings = laid_out(job_scenario(job).settings(), job.layout or POLICIES[policy].layout)
    regions = [r for r in settings.regions if settings.single_gateway in (None, r.name)]
    names = [f"{region.name}-{n}" for region in regions for n in range(region.gateways)]
    if name is not None and name not in names:
        raise OptionError(f"--record-gateway: there is no gateway {name!r}; {_listing(names)}")
    return names[0] if name is None else name


def _listing(names: Sequence[str], most: int = 10) -> str:
    more = ", ..." if len(names) > most else ""
    return f"there are {', '.join(names[:most])}{more}"


def check_writable(option: str, path: Path | None) -> None:
    """A result that cannot be written is found out before the runs, not after them."""
    if path is None or str(path) == "-":
        return
    try:
        with path.open("a"):
            pass
    except OSError as error:
        raise OptionError(f"{option} {path}: {error.strerror}") from error
