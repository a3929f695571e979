"""The document: goals first, then all sections, and where each number can be had again."""

from collections.abc import Sequence
from pathlib import Path

from heliostat_sim.evaluation import Table
from heliostat_sim.findings.campaign import Effort
from heliostat_sim.findings.remarks import remark
from heliostat_sim.findings.section import Goal, Section

_PICTURES = "evaluation"

_INTRODUCTION = """\
Heliostat's production router in a discrete-event simulation of regions, engines, gateways and
clients, beside published policies in the same world. `heliostat` and all others see only what they
would see in production; `clairvoyant` sees everything and is a measure, no rival. No policy is
expected to exceed `bound`: it is computed from mean lengths, and assumes one infinite cache shared
by all engines, prompt chunks that hide wholly in decode steps or the reverse, no waiting and a
constant number of open requests. Where a contender exceeds it all the same, the text below the
table says so. Nothing here was measured on GPUs: engines are models with an L4's or an H100's
published speeds, so ratios mean more than absolute numbers.

What Heliostat is told beforehand (prefill rate, round trips between regions, bytes per token) is
exact unless a table says otherwise; `Robustness` varies the prefill rate.

Throughput is counted as the SkyLB paper counts it: prompt tokens, cached ones in full, and output
tokens twice. Plain output tokens stand beside it. Ratios are paired by seed, with 95 % limits by
Student's t. The same seed gives the same numbers everywhere.

All of this file is written by `make evaluation`."""

_RULE = """\
The mean ratio over seeds decides whether a goal is met, unless its target names a limit; the 95 %
limits are shown beside it. A goal that its mean meets while the target lies within the limits is
"met, not established"."""

_REFERENCES = """\
- SkyLB, renamed SkyWalker: [arXiv 2505.24095](https://arxiv.org/abs/2505.24095).
- GORGO: [arXiv 2602.11688](https://arxiv.org/abs/2602.11688).
- llm-d's "sticky until saturated": [the project's blog](https://llm-d.ai/blog).
- SGLang's router: [sgl-project/sglang](https://github.com/sgl-project/sglang).
- Mooncake's traces: [kvcache-ai/Mooncake](https://github.com/kvcache-ai/Mooncake).
- Azure's traces: [Azure/AzurePublicDataset](https://github.com/Azure/AzurePublicDataset)."""


def markdown(sections: Sequence[Section], effort: Effort) -> str:
    """The whole document."""
    goals = [goal for section in sections for goal in section.goals]
    seeds = effort.seed_count
    scope = f"{seeds} seed{'s' if seeds != 1 else ''} unless a table says otherwise"
    if effort.short:
        scope += "; a short run, for a look and not for conclusions"
    parts = ["# Evaluation", _INTRODUCTION, f"This is of {scope}."]
    if goals:
        table = _goals_table(goals).to_markdown().rstrip("\n")
        parts += ["## Goals", _RULE, table, *_reasons(goals)]
    for section in sections:
        parts += [f"## {section.title}", *section.parts]
    parts += ["## References", _REFERENCES]
    return "\n\n".join(parts) + "\n"


def write(sections: Sequence[Section], effort: Effort, document: Path) -> None:
    """Write the document and its pictures; pictures of earlier documents are removed."""
    folder = document.parent / _PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for section in sections:
        for name, svg in section.pictures.items():
            (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    document.write_text(markdown(sections, effort), encoding="utf-8")


def _goals_table(goals: Sequence[Goal]) -> Table:
    judged = [goal for goal in goals if goal.applies]
    met = sum(goal.met is True for goal in judged)
    rows = tuple((goal.words, goal.target, goal.reached, _verdict(goal)) for goal in goals)
    title = f"{met} of {len(judged)} goals are met"
    if len(judged) < len(goals):
        title += f"; {len(goals) - len(judged)} more do not apply"
    return Table(("goal", "target", "reached", ""), rows, title)


def _verdict(goal: Goal) -> str:
    if not goal.applies:
        return "does not apply"
    if goal.met and not goal.established:
        return "met, not established"
    return "not judged" if goal.met is None else "met" if goal.met else "**missed**"


def _reasons(goals: Sequence[Goal]) -> list[str]:
    missed = [goal for goal in goals if goal.met is False]
    if not missed:
        return []
    return [
        "Why goals are missed:",
        "\n".join(f"- {goal.words}: {remark(goal.key)}" for goal in missed),
    ]
