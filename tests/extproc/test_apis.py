"""The table of APIs, and the page that clients read."""

import re
from pathlib import Path

from heliostat_extproc.apis import APIS, HEALTH_PATHS, PATHS_WITHOUT_ROUTER, BodyFormat

PAGE = (Path(__file__).parents[2] / "docs" / "apis.md").read_text()


def test_the_documentation_lists_each_path_that_is_served() -> None:
    """docs/apis.md is complete, promises nothing else, and tells forms from JSON."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| `/")]
    told = {path: row for row in rows for path in re.findall(r"`(/[^`]*)`", row.split("|")[1])}
    answered_here = {"/v1/models", "/v1/models/NAME", "/health"}
    assert set(told) == set(APIS) | answered_here
    for path, api in APIS.items():
        assert ("form" in told[path]) == (api.body is BodyFormat.FORM)


def test_a_gateway_without_its_router_leads_to_no_path_for_operators() -> None:
    """Engines have paths that load adapters, clear caches or tell of others' requests."""
    assert set(APIS) < PATHS_WITHOUT_ROUTER
    assert PATHS_WITHOUT_ROUTER - set(APIS) == {"/v1/models", "/health"}
    assert "/health" in HEALTH_PATHS
