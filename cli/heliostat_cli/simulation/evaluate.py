"""`heliostat sim evaluate`: writes the evaluation's document, or guards its ratios."""

import argparse
import os
import sys
from pathlib import Path

from heliostat_cli.loading import OptionError
from heliostat_cli.simulation.options import check_writable
from heliostat_sim.findings.campaign import Campaign, Effort
from heliostat_sim.findings.document import write
from heliostat_sim.findings.overload import check_traces
from heliostat_sim.findings.sections import SECTIONS, written_sections
from heliostat_sim.findings.smoke import (
    FILE_NAME,
    SEEDS,
    RatiosError,
    held_table,
    measured_ratios,
    problems,
    read_recorded,
    record,
)

_DOCUMENT = Path("docs", "evaluation.md")
_CACHE = Path("build", "evaluation")


class FellBehindError(Exception):
    """Heliostat has fallen behind recorded ratios; the message says where, a line each."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `heliostat sim evaluate`."""
    parser.add_argument(
        "--seeds", type=int, default=Effort().seeds, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--short", action="store_true", help="two minutes of virtual time and two seeds, for a look"
    )
    parser.add_argument(
        "--traces", type=Path, metavar="DIR", help="folder of the Mooncake and Azure traces"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="runs at a time (default: one for each CPU)",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=list(SECTIONS),
        metavar="SECTION",
        help=f"write this section alone, may be repeated: {', '.join(SECTIONS)}",
    )
    parser.add_argument(
        "--to",
        type=Path,
        default=_DOCUMENT,
        metavar="FILE",
        help="the document; pictures go to evaluation/ beside it (default: %(default)s)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=_CACHE,
        metavar="DIR",
        help="keep finished runs here, and do not repeat them (default: %(default)s)",
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="write nothing: fail if reduced scenarios fall behind the recorded ratios",
    )
    parser.add_argument(
        "--record", action="store_true", help="with --smoke: record the ratios instead"
    )
    parser.set_defaults(action=_evaluate)


def _evaluate(args: argparse.Namespace) -> None:
    for option in ("seeds", "processes"):
        if getattr(args, option) < 1:
            raise OptionError(f"--{option} must be positive, not {getattr(args, option)}")
    if args.record and not args.smoke:
        raise OptionError("--record goes with --smoke")
    if args.only and args.to == _DOCUMENT:
        raise OptionError(f"--only leaves sections out: give --to, not to spoil {_DOCUMENT}")
    if args.traces is not None:
        check_traces(args.traces)
    pictures = args.to.parent / "evaluation"
    if args.smoke:
        _guard(args, pictures / FILE_NAME)
        return
    check_writable("--to", args.to)
    effort = Effort(args.seeds, args.short, args.traces, args.processes)
    campaign = Campaign(effort, args.cache, _tell)
    sections = written_sections(campaign, pictures, args.only or ())
    write(sections, effort, args.to)
    goals = [goal for section in sections for goal in section.goals]
    print(f"{args.to}: {sum(goal.met is True for goal in goals)} of {len(goals)} goals are met")


def _guard(args: argparse.Namespace, path: Path) -> None:
    if not args.record:
        try:
            read_recorded(path)
        except RatiosError as error:
            raise OptionError(str(error)) from error
    campaign = Campaign(Effort(SEEDS, processes=args.processes), args.cache, _tell)
    ratios = measured_ratios(campaign)
    if args.record:
        record(ratios, path)
        print(f"{path}: recorded")
        return
    lines = problems(ratios, path)
    if lines:
        raise FellBehindError("\n".join(lines))
    print(held_table(ratios, path).to_text(), end="")
    print(f"Heliostat holds the ratios to SkyLB in {path}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
