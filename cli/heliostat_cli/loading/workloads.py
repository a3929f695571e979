"""The workload that the command line asks for."""

import argparse
from pathlib import Path

from heliostat_cli.loading.options import OptionError
from heliostat_sim.workload.azure import azure
from heliostat_sim.workload.conversations import (
    ConversationSettings,
    LengthDistribution,
    conversations,
)
from heliostat_sim.workload.mooncake import mooncake
from heliostat_sim.workload.session import Workload, with_poisson_arrivals
from heliostat_sim.workload.traces import TraceWindow

_CHATS = ConversationSettings()
_CHAT_OPTIONS: dict[str, tuple[int | float, str, str]] = {
    "groups": (_CHATS.groups, "N", "applications; the users of one share its system prompt"),
    "users": (_CHATS.users, "N", "people, each in one group"),
    "system-tokens": (_CHATS.system_tokens, "TOKENS", "system prompt shared by a group"),
    "profile-tokens": (_CHATS.profile_tokens, "TOKENS", "system prompt's part of one user"),
    "mean-turns": (_CHATS.mean_turns, "N", "mean turns of a conversation"),
    "single-turn-ratio": (_CHATS.single_turn_ratio, "0..1", "conversations with one turn"),
    "user-tokens": (_CHATS.user_tokens.mean_tokens, "TOKENS", "mean user message (lognormal)"),
    "user-tokens-deviation": (
        _CHATS.user_tokens.deviation_tokens,
        "TOKENS",
        "standard deviation of the user message",
    ),
    "output-tokens": (_CHATS.output_tokens.mean_tokens, "TOKENS", "mean answer (lognormal)"),
    "output-tokens-deviation": (
        _CHATS.output_tokens.deviation_tokens,
        "TOKENS",
        "standard deviation of the answer",
    ),
    "think-seconds": (_CHATS.think_seconds, "SECONDS", "mean time from an answer to the next turn"),
    "max-context-tokens": (
        _CHATS.max_context_tokens,
        "TOKENS",
        "a conversation ends before it grows longer",
    ),
}
"""Option of synthetic conversations -> its default, unit and help."""

_TRACE_OPTIONS = ("trace", "time_scale", "start", "duration")


def configure_workload(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose and shape the workload."""
    choice = parser.add_argument_group("workload")
    choice.add_argument(
        "--workload",
        choices=("conversations", "mooncake", "azure"),
        default="conversations",
        help="synthetic chats, or a trace (default: %(default)s)",
    )
    trace = parser.add_argument_group("traces")
    trace.add_argument(
        "--trace", type=Path, metavar="PATH", help="Mooncake .jsonl or Azure LLM inference .csv"
    )
    trace.add_argument(
        "--time-scale",
        type=float,
        metavar="X",
        help="X seconds of the trace pass in one (default: 1)",
    )
    trace.add_argument(
        "--start", type=float, metavar="SECONDS", help="where in the trace to begin (default: 0)"
    )
    trace.add_argument(
        "--duration", type=float, metavar="SECONDS", help="how much of the trace (default: all)"
    )
    trace.add_argument(
        "--shared-tokens",
        type=int,
        metavar="TOKENS",
        help="azure: system prompt shared by all, part of the trace's lengths (default: 0)",
    )
    chats = parser.add_argument_group("conversations")
    for name, (default, unit, help_line) in _CHAT_OPTIONS.items():
        chats.add_argument(
            f"--{name}",
            type=type(default),
            metavar=unit,
            help=f"{help_line} (default: {default:g})",
        )


def choose_workload(args: argparse.Namespace) -> Workload:
    """Build the workload, with Poisson arrivals where a rate is given.

    Raises OptionError or WorkloadError where the options do not fit together.
    """
    workload = _conversations(args) if args.workload == "conversations" else _trace(args)
    if args.rate is not None:
        workload = with_poisson_arrivals(workload, args.rate)
    return workload


def _conversations(args: argparse.Namespace) -> Workload:
    _refuse(args, (*_TRACE_OPTIONS, "shared_tokens"))

    def value(name: str) -> int | float:
        given: int | float | None = getattr(args, name.replace("-", "_"))
        return _CHAT_OPTIONS[name][0] if given is None else given

    settings = ConversationSettings(
        groups=int(value("groups")),
        users=int(value("users")),
        system_tokens=int(value("system-tokens")),
        profile_tokens=int(value("profile-tokens")),
        mean_turns=value("mean-turns"),
        single_turn_ratio=value("single-turn-ratio"),
        user_tokens=LengthDistribution(
            value("user-tokens"), value("user-tokens-deviation"), _CHATS.user_tokens.max_tokens
        ),
        output_tokens=LengthDistribution(
            value("output-tokens"),
            value("output-tokens-deviation"),
            _CHATS.output_tokens.max_tokens,
        ),
        think_seconds=value("think-seconds"),
        max_context_tokens=int(value("max-context-tokens")),
    )
    return conversations(settings, args.seed)


def _trace(args: argparse.Namespace) -> Workload:
    _refuse(args, [name.replace("-", "_") for name in _CHAT_OPTIONS])
    if args.trace is None:
        raise OptionError(f"--workload {args.workload} needs --trace PATH")
    window = TraceWindow(
        start_seconds=args.start or 0.0,
        duration_seconds=args.duration,
        time_scale=1.0 if args.time_scale is None else args.time_scale,
    )
    if args.workload == "azure":
        return azure(args.trace, window, args.seed, args.shared_tokens or 0)
    _refuse(args, ["shared_tokens"])
    return mooncake(args.trace, window, args.seed)


def _refuse(args: argparse.Namespace, names: tuple[str, ...] | list[str]) -> None:
    """Raise OptionError if an option is given that this workload would ignore."""
    for name in names:
        if getattr(args, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise OptionError(f"{option} means nothing to --workload {args.workload}")
