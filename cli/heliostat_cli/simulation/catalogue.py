"""What there is to simulate, in few words: what `heliostat sim list` tells."""

import shutil
import textwrap
from collections.abc import Mapping

from heliostat_sim.policies.registry import PolicyName

POLICY_LINES: Mapping[PolicyName, str] = {
    PolicyName.HELIOSTAT: "the production router: predicted wait, prefill and network in seconds",
    PolicyName.ROUND_ROBIN: "one gateway, engines in turn",
    PolicyName.LEAST_LOAD: "one gateway, the engine with the fewest open requests",
    PolicyName.RING_HASH: "one gateway, users on a consistent hash ring",
    PolicyName.SGLANG: "one gateway, SGLang's cache-aware router",
    PolicyName.GKE: "Google Cloud's multi-cluster gateway: the closest region with capacity left",
    PolicyName.SKYLB: "SkyLB: local first, longest prefix, pushing where no request waits",
    PolicyName.SKYLB_CH: "SkyLB with ring hashes instead of prefix trees",
    PolicyName.BLIND_PUSH: "SkyLB's selection inside a region, sending at once",
    PolicyName.SELECTIVE_PUSH_OUTSTANDING: "the same, below a cap of outstanding requests",
    PolicyName.SELECTIVE_PUSH_PENDING: "the same, where no request waits",
    PolicyName.GORGO: "GORGO: the least of network, prefill and queue",
    PolicyName.STICKY: "llm-d's sticky until saturated",
    PolicyName.CLAIRVOYANT: "greedy with full sight of engines and lengths: no rival, a measure",
}

_NAME_WIDTH = 18


def catalogue(entries: Mapping[str, str]) -> str:
    """Names and what they stand for, wrapped to the terminal; ends in a newline."""
    columns = max(60, shutil.get_terminal_size((100, 24)).columns)
    indent = " " * (_NAME_WIDTH + 2)
    return "".join(
        textwrap.fill(
            " ".join(words.split()),
            columns,
            initial_indent=f"  {name}".ljust(len(indent) - 1) + " ",
            subsequent_indent=indent,
        )
        + "\n"
        for name, words in entries.items()
    )
