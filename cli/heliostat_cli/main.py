"""The entry point: maps a subcommand's name to its module, imported only when it is asked for."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "demo": "watch three regions serve each other, with real gateways before engine stand-ins",
    "gateway": "run Envoy and its router together",
    "router": "run the router alone, for an Envoy that you run",
    "operator": "keep a cluster's engines as its InferencePools declare them",
    "engine": "run an engine stand-in that speaks vLLM's HTTP",
    "status": "show regions and their peers: who is up, how loaded, and sends where",
    "explain": "show why a request went where it went: each candidate and what it would cost",
    "certs": "make certificates with which regions recognise each other, for trying out",
    "load": "send OpenAI requests and report latency, throughput and hit ratio",
    "sim": "simulate regions of engines, and compare routing policies",
}
"""Subcommand -> one line of help. Each lives in the module `heliostat_cli.<name>`, which has
`configure(parser)` and `run(args) -> exit status`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 0 on success, 1 on failure, 2 on wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="heliostat", description="Cache-aware routing of LLM requests to vLLM engines."
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((a for a in arguments if not a.startswith("-")), None)
    for name, help_line in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=help_line, description=help_line)
        if name == chosen:
            module = importlib.import_module(f"heliostat_cli.{name}")
            module.configure(subparser)
            subparser.set_defaults(run=module.run)
    args = parser.parse_args(arguments)
    try:
        status = int(args.run(args))
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return 1
    return status


def _drop_output() -> None:
    """Nobody reads stdout any more, as after `| head`: what is left of it goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
