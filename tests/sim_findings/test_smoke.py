"""The guard of recorded ratios."""

import json
from pathlib import Path

import pytest

from heliostat_sim.findings.smoke import Ratios, RatiosError, held_table, problems, record

RATIOS: Ratios = {"arena": {"hit_ratio": 1.1, "ttft_p90_seconds": 0.5}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where `RATIOS` are recorded."""
    path = tmp_path / "evaluation" / "ratios.json"
    record(RATIOS, path)
    return path


def test_recorded_ratios_hold(path: Path) -> None:
    """What is recorded is not behind itself."""
    assert problems(RATIOS, path) == []


def test_what_holds_is_shown_beside_what_is_recorded(path: Path) -> None:
    """A row has the ratio now, the recorded one and the tolerance."""
    table = held_table({"arena": {"hit_ratio": 1.2, "ttft_p90_seconds": 0.4}}, path)
    assert table.rows[0] == ("arena: hit ratio", "1.200", "1.100", "3%")


@pytest.mark.parametrize(
    ("hit", "wait", "behind"),
    [
        (1.2, 0.4, []),
        (1.08, 0.55, []),
        (1.05, 0.5, ["arena: hit ratio: 1.050 x SkyLB's, recorded 1.100 with a tolerance of 3%"]),
        (1.1, 0.6, ["arena: TTFT p90: 0.600 x SkyLB's, recorded 0.500 with a tolerance of 15%"]),
    ],
)
def test_only_what_is_worse_by_more_than_the_tolerance_is_told(
    path: Path, hit: float, wait: float, behind: list[str]
) -> None:
    """Better and a little worse pass; each measure is worse in its own direction."""
    ratios = {"arena": {"hit_ratio": hit, "ttft_p90_seconds": wait}}
    assert problems(ratios, path) == behind


def test_a_recorded_ratio_that_is_not_measured_is_told(path: Path) -> None:
    """A scenario that is no longer run cannot pass unseen."""
    told = problems({"arena": {"hit_ratio": 1.1}}, path)
    assert told == ["arena: TTFT p90: not measured, 0.500 x SkyLB's recorded"]


@pytest.mark.parametrize("text", ["", "[]", '{"arena": 1}', json.dumps({"arena": {"speed": {}}})])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, text: str) -> None:
    """Nothing is guarded by a file that makes no sense."""
    path = tmp_path / "ratios.json"
    path.write_text(text)
    with pytest.raises(RatiosError):
        problems(RATIOS, path)
