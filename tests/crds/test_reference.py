from pathlib import Path

from heliostat_crds.manifest import parse_manifests
from heliostat_crds.reference import markdown

PAGE = Path(__file__).parents[2] / "docs" / "inference-pool.md"


def between(text: str, begin: str, end: str) -> str:
    return text.partition(begin)[2].partition(end)[0]


def test_the_page_holds_the_fields_as_they_are() -> None:
    """The table on the page is what the models give; if not, paste markdown() there."""
    page = PAGE.read_text()
    assert between(page, "<!-- fields: begin -->\n", "<!-- fields: end -->") == markdown()


def test_every_field_has_a_meaning() -> None:
    """No row of the table lacks its last cell."""
    rows = markdown().splitlines()[2:]
    assert len(rows) > 20
    assert [row for row in rows if row.endswith("|  |")] == []


def test_the_example_on_the_page_is_a_pool() -> None:
    """The page's example is taken without a problem and means what the page says."""
    found = parse_manifests("example.yaml", between(PAGE.read_text(), "```yaml\n", "```"))
    assert found.problems == ()
    (manifest,) = found.pools
    assert manifest.pool.key == "chat"
    assert manifest.pool.pool_settings().queue_timeout_seconds == 30.0
    assert len(manifest.pool.endpoint_settings()) == 2
