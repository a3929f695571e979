"""Whether the simulation can be trusted: what was fitted or guided, and what it predicts."""

from collections.abc import Sequence

from heliostat_sim.evaluation import Table
from heliostat_sim.findings.campaign import Campaign
from heliostat_sim.findings.fitting import (
    Candidate,
    best,
    chat_fit,
    chosen_kv_tokens,
    chosen_tree_tokens,
    tree_fit,
)
from heliostat_sim.findings.predictions import Range, predictions
from heliostat_sim.findings.published import MISS_RATIO, PUBLISHED
from heliostat_sim.findings.remarks import remark
from heliostat_sim.findings.section import Draft, Section

_SHOWN = 6
_ALIKE = 0.05
"""Errors that differ by less say little."""
_BY_HAND = (
    """- KV capacity of 31,000 tokens: the fit, and what an L4's memory can hold. It is the edge of
    the grid, where errors are flat.""",
    """- Lengths of tree prompts, 700 shared and 340 of an answer: of pairs that fit about as
    well this one, by the published result of blind pushing.""",
    """- `answers: recorded`, by which a chat's later prompts hold the data set's answers and not
    the engine's: the published hit rates of chats.""",
    """- Turns and lengths of chats: what is published of the data sets and, where that leaves room,
    the published hit rates of chats.""",
)


def calibration(campaign: Campaign) -> Section:
    """Two fits on hit rates, and all published figures against what follows."""
    draft = Draft("Calibration")
    draft.say(
        """Engine speeds come from the hardware's data, not from a fit. The KV capacity is fitted
        once, for both chats together, on the published hit rates of round robin and least load
        alone. The paper does not publish the lengths of its tree prompts: the part that all prompts
        share and the mean answer are fitted on the same two policies' hit rates in both tree
        workloads. More was chosen by hand, some of it with an eye on published figures: those
        figures are marked `guided`, and are no evidence. All others are predicted. The paper does
        not say which end of a range is which workload, so the lower simulated value is held against
        the lower published one. Chosen by hand, and what guided it:"""
    )
    draft.items(_BY_HAND)
    _capacities(draft, chat_fit(campaign))
    _lengths(draft, tree_fit(campaign))
    _predicted(draft, campaign)
    return draft.done()


def _capacities(draft: Draft, candidates: Sequence[Candidate]) -> None:
    rows = tuple(
        (f"{candidate.values[0]:,}", *_hits(candidate), f"{candidate.error:.3f}")
        for candidate in candidates
    )
    header = ("KV tokens", "round robin", "least load", "error")
    draft.heading("KV capacity of an engine")
    draft.table(Table(header, rows, "Hit rates in both chats; error as root mean square of logs"))
    least, chosen = best(candidates), chosen_kv_tokens()
    alike = [c.values[0] for c in candidates if c.error <= least.error + _ALIKE]
    draft.say(
        f"""Fitted: {least.values[0]:,} tokens. The scenarios have {chosen:,}. Capacities from
        {min(alike):,} on differ in error by less than {_ALIKE:g}. The grid ends with what an L4's
        memory can hold."""
    )


def _lengths(draft: Draft, candidates: Sequence[Candidate]) -> None:
    ordered = sorted(candidates, key=lambda candidate: candidate.error)[:_SHOWN]
    rows = tuple(
        (*map(str, candidate.values), *_hits(candidate), f"{candidate.error:.3f}")
        for candidate in ordered
    )
    header = ("shared tokens", "answer tokens", "round robin", "least load", "error")
    draft.heading("Lengths of tree prompts")
    draft.table(Table(header, rows, f"Hit rates in both tree workloads; the best {_SHOWN} pairs"))
    shared, answer = chosen_tree_tokens()
    draft.say(
        f"""The scenarios have {shared} shared tokens and answers of {answer} in the mean. Hit rates
        alone do not tell longer prompts with longer answers from shorter ones. Of the pairs that
        fit about as well, this is the one with which the engines of the ablation are as full as
        they must be for blind pushing to fall behind. That uses the published result of blind
        pushing, so its throughput and its wait are guided, not predicted."""
    )


def _predicted(draft: Draft, campaign: Campaign) -> None:
    found = predictions(campaign)
    rows, missed = [], []
    for published in PUBLISHED:
        error = published.error(*found[published.key])
        kind = f"{published.basis}, missed" if error > MISS_RATIO else published.basis.value
        ours = _words(found[published.key])
        target = _words((published.low, published.high))
        rows.append((published.words, target, ours, f"{error:.0%}", kind))
        if error > MISS_RATIO:
            missed.append(f"- {published.words}: {remark(published.key)}")
    draft.heading("Published and predicted")
    header = ("", "published", "simulated", "error", "")
    draft.table(Table(header, tuple(rows), "Ranges over workloads; the error of the worse end"))
    if missed:
        draft.say(f"More than {MISS_RATIO:.0%} off, and why:")
        draft.items(missed)


def _hits(candidate: Candidate) -> list[str]:
    return [_words(ends) for ends in candidate.hits.values()]


def _words(ends: Range) -> str:
    low, high = (f"{end:.3f}" if end < 1 else f"{end:.2f}" for end in ends)
    return low if low == high else f"{low} to {high}"
