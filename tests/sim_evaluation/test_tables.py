from dataclasses import fields

import pytest

from heliostat_sim.evaluation import MEASURES, Report, Table, measure_named
from heliostat_sim.evaluation.measures import duration, number, percentage

TABLE = Table(("", "skylb", "a|b"), (("TTFT", "1.20 s", "9 ms"),), "Times")


def test_text_has_columns() -> None:
    """Columns of a text table line up, numbers to the right."""
    assert TABLE.to_text() == "Times\n       skylb   a|b\nTTFT  1.20 s  9 ms\n"
    assert Table(("", ""), (("a", "1"),)).to_text() == "a  1\n"


def test_markdown_is_a_table() -> None:
    """A Markdown table has its title, a rule that aligns, and no bar of a cell's own."""
    assert TABLE.to_markdown() == (
        "**Times**\n\n"
        "|      |  skylb | a\\|b |\n"
        "| ---- | -----: | ---: |\n"
        "| TTFT | 1.20 s | 9 ms |\n"
    )


def test_a_short_row_is_refused() -> None:
    """A row has as many cells as there are headings."""
    with pytest.raises(ValueError, match="1 cells under 2"):
        Table(("", "a"), (("x",),))


def test_every_measure_is_a_field() -> None:
    """Each measure is told once, and is a field of the report."""
    names = [measure.field for measure in MEASURES]
    assert len(set(names)) == len(names)
    assert set(names) <= {field.name for field in fields(Report)}
    assert measure_named("ttft_p90_seconds").label == "TTFT p90"


def test_numbers_are_short() -> None:
    """Durations take the unit that suits them, great numbers commas, and nothing is a dash."""
    assert [duration(v) for v in (None, 0.0123, 0.5, 1.0, 123.4)] == [
        *("-", "12.3 ms", "500 ms", "1.00 s", "123 s")
    ]
    assert [number(v) for v in (None, 0.0, 7.0, 1.234, 123.4, 12345.6)] == [
        *("-", "0", "7", "1.23", "123", "12,346")
    ]
    assert percentage(0.4567) == "45.7%"
