from pathlib import Path

import pytest
from pydantic import BaseModel

from heliostat_crds.generate import generated_files
from heliostat_crds.inference_pool import InferencePool, PoolKind
from heliostat_crds.manifest import parse_manifests
from heliostat_crds.reference import field_table, server_rules
from heliostat_crds.region_peer import RegionPeer
from heliostat_crds.yaml_document import read_yaml

ROOT = Path(__file__).parents[2]
POOL_PAGE = ROOT / "docs" / "inference-pool.md"
PEER_PAGE = ROOT / "docs" / "region-peer.md"


def examples(page: Path) -> list[str]:
    return [part.partition("```")[0] for part in page.read_text().split("```yaml\n")[1:]]


@pytest.mark.parametrize("path", list(generated_files(ROOT)), ids=lambda path: str(path.name))
def test_what_is_made_from_the_models_is_current(path: Path) -> None:
    """The committed CRDs and pages are what the models give; if not, run `make crds`."""
    assert path.read_text() == generated_files(ROOT)[path]


@pytest.mark.parametrize("model", [InferencePool, RegionPeer])
def test_every_field_has_a_meaning(model: type[BaseModel]) -> None:
    """No row of a table lacks its last cell."""
    rows = field_table(model).splitlines()[2:]
    assert len(rows) > 10
    assert [row for row in rows if row.endswith("|  |")] == []


def test_the_page_tells_what_only_the_api_server_holds() -> None:
    """Every rule about a change is on the page."""
    assert len(server_rules(InferencePool).splitlines()) == 5
    assert server_rules(InferencePool) in POOL_PAGE.read_text()


def test_the_examples_on_the_page_are_pools() -> None:
    """Each example is taken without a problem, and there is one of every kind."""
    found = [parse_manifests("example.yaml", text) for text in examples(POOL_PAGE)]
    assert [problem for file in found for problem in file.problems] == []
    pools = [manifest.pool for file in found for manifest in file.pools]
    assert {pool.pool_kind for pool in pools} == set(PoolKind)
    fixed = pools[-1]
    assert fixed.pool_settings().queue_timeout_seconds == 30.0
    assert len(fixed.endpoint_settings()) == 2


def test_the_example_on_the_page_is_a_peer() -> None:
    """The page's example is a valid peer."""
    (text,) = examples(PEER_PAGE)
    (document,) = read_yaml(text)
    assert RegionPeer.model_validate(document.data).spec.region == "eu-west"
