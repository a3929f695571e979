"""The document, its pictures and its parts."""

import json
from pathlib import Path

import pytest

from heliostat_sim.evaluation import Table
from heliostat_sim.findings import remarks
from heliostat_sim.findings.campaign import Campaign, Contender, Effort, Study, contenders
from heliostat_sim.findings.document import markdown, write
from heliostat_sim.findings.gpu_hours import fluid_floor
from heliostat_sim.findings.published import PUBLISHED, Published
from heliostat_sim.findings.regional import spread_evenly
from heliostat_sim.findings.scale_result import scale
from heliostat_sim.findings.section import Draft, Goal
from heliostat_sim.policies.registry import GatewayLayout, PolicyName

SHORT = Effort(seeds=1, short=True)


def drafted() -> Draft:
    """A section with one of everything."""
    draft = Draft("Chat")
    draft.say("Two\n   lines.")
    draft.table(Table(("", "hits"), (("skylb", "0.4"),)))
    draft.picture("curve", "A curve", "<svg/>\n")
    draft.goals(
        [
            Goal("chat-hits", "Chat: hits", "at least 1", "1.1", True),
            Goal("chat-waits", "Chat: waits", "at most 1", "1.2", False),
        ]
    )
    return draft


def test_goals_come_first_and_missed_ones_with_their_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The table of goals precedes the sections, and a missed goal shows its remark."""
    monkeypatch.setattr(remarks, "remarks", lambda: {"chat-waits": "Half of it is the network."})
    text = markdown([drafted().done()], SHORT)
    assert "1 of 2 goals are met" in text
    assert "- Chat: waits: Half of it is the network." in text
    assert text.index("## Goals") < text.index("## Chat")
    assert "Two lines." in text


def test_a_goal_that_does_not_apply_counts_nowhere() -> None:
    """It is neither met nor missed nor in their sum, and its row says so."""
    draft = drafted()
    draft.goals([Goal("chat-ttft", "Chat: TTFT", "at most 1", "1.4x", None, applies=False)])
    text = markdown([draft.done()], SHORT)
    assert "1 of 2 goals are met; 1 more do not apply" in text
    assert "does not apply |" in text


def test_a_goal_met_by_its_mean_alone_says_so() -> None:
    """It counts as met, and its row tells that the limits do not establish it."""
    draft = Draft("Chat")
    draft.goals([Goal("chat-e2e", "Chat: E2E", "at most 1", "0.9x", True, established=False)])
    text = markdown([draft.done()], SHORT)
    assert "1 of 1 goals are met" in text
    assert "met, not established |" in text


def test_pictures_of_earlier_documents_go(tmp_path: Path) -> None:
    """The folder holds this document's pictures, and what is no picture stays."""
    folder = tmp_path / "evaluation"
    folder.mkdir()
    (folder / "old.svg").write_text("<svg/>")
    (folder / "scale.json").write_text("{}")
    write([drafted().done()], SHORT, tmp_path / "evaluation.md")
    assert sorted(path.name for path in folder.iterdir()) == ["curve.svg", "scale.json"]
    assert "![A curve](evaluation/curve.svg)" in (tmp_path / "evaluation.md").read_text()


def test_the_scale_scenarios_result_is_shown_where_there_is_one(tmp_path: Path) -> None:
    """The section always tells the command, and the values once they are recorded."""
    assert "No result is recorded." in scale(tmp_path).parts
    (tmp_path / "scale.json").write_text(json.dumps({"requests": 1_200_000, "wall_minutes": 12.5}))
    assert "1,200,000" in scale(tmp_path).parts[-1]
    assert "wall minutes" in scale(tmp_path).parts[-1]


def test_every_remark_belongs_to_something() -> None:
    """A remark's key begins like a goal's or a published figure's."""
    begins = {published.key.split("-")[0] for published in PUBLISHED} | {
        *("arena", "wildchat", "tree", "mixed", "day", "skew", "hot", "bursts", "slow", "mooncake"),
        *("gpu", "robust"),
    }
    assert [key for key in remarks.remarks() if key.split("-")[0] not in begins] == []


def test_an_error_is_that_of_the_worse_end() -> None:
    """Ranges are compared end by end."""
    assert Published("k", "w", 0.1, 0.2).error(0.11, 0.15) == pytest.approx(0.25)


def test_engines_are_spread_evenly() -> None:
    """What is left over goes to the first regions."""
    spread = spread_evenly(5, ("us", "asia"))
    assert spread == ("regions.us.engines=3", "regions.asia.engines=2")


def test_the_fluid_floor_does_not_depend_on_the_days_length() -> None:
    """A shorter day has the same peak, which is below the sum of the regions' own peaks."""
    floor = fluid_floor(1800.0)
    assert floor == pytest.approx(fluid_floor(3600.0))
    assert 3 * 2.0 / 0.8 <= floor < 3 * 2 * 2.0 / 0.8


def test_a_campaign_runs_nothing_twice(tmp_path: Path) -> None:
    """A second campaign with the same caches finds all reports there, of both layouts apart."""
    study = Study(
        "pushing",
        (
            *contenders(PolicyName.HELIOSTAT),
            Contender(PolicyName.ROUND_ROBIN),
            Contender(PolicyName.ROUND_ROBIN, GatewayLayout.PER_REGION),
        ),
        ("regions.us.clients=1", "regions.us.engines=1", "duration=25s"),
        reference="heliostat",
    )
    lines: list[str] = []
    first = Campaign(SHORT, tmp_path, lines.append).compare(study)
    assert list(first.reports) == ["heliostat", "round-robin", "round-robin, per-region"]
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    again = Campaign(SHORT, tmp_path, lines.append).compare(study)
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == sizes
    assert again.to_json() == first.to_json()
