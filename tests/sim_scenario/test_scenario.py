from dataclasses import replace
from pathlib import Path

import pytest

from heliostat_sim.engine.profiles import PROFILES
from heliostat_sim.scenario.problems import ScenarioError
from heliostat_sim.scenario.scenario import (
    Scenario,
    load_scenario,
    parse_change,
    parse_scenario,
)
from heliostat_sim.world.settings import Fault, FaultKind

TEXT = """\
description: two regions
engine: {profile: l4-llama-8b, kvTokens: 21000, prefillPerToken: 0.27ms, speed: 200%}
regions:
  us: {engines: 2, gateways: 3, rate: 90/m}
  eu: {engines: 1, rate: 1/s}
roundTrips:
  between:
    us: {eu: 102ms}
workload:
  kind: open-chat
  chat: arena
  storms:
    - {at: 10s, share: 40%}
think: 5s
duration: 1m
signals: {scrapeDelay: 1s, scrapeLoss: 5%, assumedPrefill: 300%}
faults:
  - {kind: link, at: 5s, lasts: 500ms, region: us, otherRegion: eu}
  - {kind: slow, at: 5s, lasts: 5s, region: us, engine: 1, speed: 50%}
short:
  duration: 2s
  faults.0.at: 1s
  faults.1.at: 1s
"""


def parsed(text: str = TEXT) -> Scenario:
    return parse_scenario("test", text, "test.yaml")


def problem(old: str, new: str) -> str:
    assert old in TEXT
    with pytest.raises(ScenarioError) as raised:
        parsed(TEXT.replace(old, new))
    return str(raised.value)


def test_a_file_becomes_settings() -> None:
    """Values with units become seconds and ratios."""
    settings = parsed().settings()
    assert settings.profile == replace(
        PROFILES["l4-llama-8b"],
        kv_tokens=21_000,
        prefill_seconds_per_token=pytest.approx(0.27e-3),
        speed_ratio=2.0,
    )
    assert [(r.name, r.engines, r.gateways) for r in settings.regions] == [
        ("us", 2, 3),
        ("eu", 1, 1),
    ]
    assert settings.round_trips == {frozenset(("us", "eu")): 0.102}
    assert settings.duration_seconds == 60
    assert settings.signals.scrape_loss_ratio == pytest.approx(0.05)
    assert settings.signals.assumed_prefill_ratio == 3.0
    assert settings.faults == (
        Fault(FaultKind.LINK, 5.0, 0.5, "us", "eu"),
        Fault(FaultKind.SLOW, 5.0, 5.0, "us", engine=1, speed_ratio=0.5),
    )


def test_a_rate_may_be_by_the_minute() -> None:
    """90 a minute are 1.5 a second."""
    assert parsed().spec.regions["us"].rate == 1.5


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("think: 5s", "think: 5", 'test.yaml:14: think: must be a duration with a unit'),
        ("think: 5s", "think: 5d", 'test.yaml:14: think: "5d" is not a duration'),
        ("share: 40%", "share: 0.4", "test.yaml:13: workload.storms[0].share: must be a percent"),
        ("share: 40%", "share: 140%", "test.yaml:13: workload.storms[0].share: "),
        ("rate: 1/s", "rate: 1", "test.yaml:5: regions.eu.rate: must be a rate"),
        ("rate: 1/s", "clients: 5", "test.yaml:5: regions.eu.rate: the workload open-chat needs"),
        ("rate: 1/s", "rate: 1/s, weight: 2", "test.yaml:5: regions.eu.weight: the workload open"),
        ("rate: 1/s", "rate: 1/s, branches: 2", "regions.eu.branches: only trees"),
        ("rate: 1/s", "rate: 1/s, peakToTrough: 2", "regions.eu.peakToTrough: a peak needs"),
        ("engines: 1", "engines: one", 'regions.eu.engines: "one" is not allowed'),
        ("engines: 1", "engine: 1", "regions.eu.engine: unknown field"),
        ("kind: open-chat", "kind: open-chap", 'there is no kind "open-chap" (did you mean'),
        ("chat: arena", "chat: arenas", 'test.yaml:11: workload.chat: "arenas" is not allowed'),
        ("l4-llama-8b", "l5", 'test.yaml:2: engine.profile: there is no profile "l5"'),
        ("otherRegion: eu", "otherRegion: au", 'faults[0].otherRegion: there is no region "au"'),
        (", otherRegion: eu", "", "faults[0].otherRegion: a fault of the kind link needs"),
        ("engine: 1, speed", "engine: 2, speed", "faults[1].engine: us has 2 engines"),
        ("{eu: 102ms}", "{}", "roundTrips.between: the round trip between us and eu is missing"),
        ("kvTokens: 21000", "kvTokens: -1", "test.yaml:2: engine.kvTokens: the number -1"),
        ("kind: link, at: 5s", "kind: link, at: 60s", "faults[0].at: the world ends at 60 s"),
        ("  duration: 2s", "  duraton: 2s", "duraton: unknown field (in the short form)"),
        ("faults.1.at: 1s", "faults.1.at: 3s", "faults[1].at: the world ends at 2 s, before this"),
        ("think: 5s", "think: 5s\nthink: 6s", 'test.yaml:15: key "think" is already given'),
    ],
)  # fmt: skip
def test_problems_name_file_line_and_field(old: str, new: str, told: str) -> None:
    """What is wrong is told by its file, line and field, and what would be right."""
    assert told in problem(old, new)


def test_changes_are_checked_like_the_file() -> None:
    """A change at a dotted path makes another scenario, or an error that names the field."""
    scenario = parsed()
    changed = scenario.with_changes(
        {"regions.us.engines": 4, "think": "0s", "faults.1.engine": 3, "signals.scrapeDelay": "2s"}
    )
    assert changed.spec.regions["us"].engines == 4
    assert changed.settings().faults[1].engine == 3
    assert scenario.spec.regions["us"].engines == 2
    with pytest.raises(ScenarioError, match=r"test.yaml: regions.us.engines: .*not allowed"):
        scenario.with_changes({"regions.us.engines": "4"})
    with pytest.raises(ScenarioError, match=r"engine\.kvToken: unknown field"):
        scenario.with_changes({"engine.kvToken": 4})
    with pytest.raises(ScenarioError, match="none of the 2 entries"):
        scenario.with_changes({"faults.2.engine": 4})
    with pytest.raises(ScenarioError, match="is a value and has no fields"):
        scenario.with_changes({"think.mean": "1s"})


def test_the_short_form_is_what_the_file_says() -> None:
    """The short form takes the file's own changes, and other changes still hold in it."""
    short = parsed().with_changes({"think": "0s"}).shortened()
    assert short.spec.duration == 2.0
    assert short.spec.think == 0.0
    assert short.spec.short == {}


def test_changes_from_a_command_line() -> None:
    """A change is a path and a value as in the file."""
    assert parse_change("regions.us.engines=4") == ("regions.us.engines", 4)
    assert parse_change("think=5s") == ("think", "5s")
    with pytest.raises(ScenarioError, match="PATH=VALUE"):
        parse_change("think")


def test_scenarios_are_loaded_from_files(tmp_path: Path) -> None:
    """A path is a file of one's own; an unknown name is told with those there are."""
    file = tmp_path / "mine.yaml"
    file.write_text(TEXT)
    assert load_scenario(file).name == load_scenario(str(file)).name == "mine"
    with pytest.raises(ScenarioError, match='no scenario "mine"; there are arena, '):
        load_scenario("mine")
    for name in ("mine.yml", "arena"):
        assert load_scenario(str(file.rename(tmp_path / name))).spec == parsed().spec
        (tmp_path / name).rename(file)
    with pytest.raises(ScenarioError, match=r"^nofile\.yaml: No such file or directory$"):
        load_scenario("nofile.yaml")


def test_a_description_may_be_left_out() -> None:
    """A file of one's own needs no words about itself."""
    assert parsed(TEXT.replace("description: two regions\n", "")).description == ""


def test_equal_seeds_ask_for_the_same() -> None:
    """A scenario's demand depends on the seed alone."""

    def seen(seed: int) -> list[tuple[float, str, int]]:
        return [(a.at, a.region, a.session.user) for a in parsed().demand(seed).arrivals]

    assert seen(1) == seen(1)
    assert seen(1) != seen(2)
