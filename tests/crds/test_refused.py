"""The table of refused specs, as a folder's reader sees it; the API server's side is in e2e."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from heliostat_crds.inference_pool import InferencePool
from heliostat_crds.manifest import parse_manifests
from heliostat_crds.region_peer import PEER_KIND, RegionPeer
from heliostat_crds.wire_names import API_VERSION

CASES: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "refused.yaml").read_text(encoding="utf-8")
)


def whole(manifest: dict[str, Any]) -> dict[str, Any]:
    defaults = {"apiVersion": API_VERSION, "kind": "InferencePool", "metadata": {"name": "refused"}}
    return {**defaults, **manifest}


def problem_of(manifest: dict[str, Any]) -> str:
    (problem,) = parse_manifests("pools.yaml", yaml.safe_dump(manifest)).problems
    return str(problem)


@pytest.mark.parametrize("entry", CASES, ids=lambda entry: str(entry["case"]))
def test_a_folder_refuses_it_in_the_tables_words(entry: dict[str, Any]) -> None:
    """What a folder can tell is wrong, it tells as the API server does; the rest is well formed."""
    manifest = whole(entry["manifest"])
    if entry["folder"]:
        assert entry["message"] in problem_of(manifest)
    else:
        before, after = whole(entry["before"]), {**manifest}
        model = RegionPeer if manifest["kind"] == PEER_KIND else InferencePool
        assert model.from_object(before).key == model.from_object(after).key


def test_the_table_is_complete() -> None:
    """Each case has a name of its own, a reason and a message."""
    assert len(CASES) >= 30
    assert len({entry["case"] for entry in CASES}) == len(CASES)
    assert all(entry["why"] and entry["message"] for entry in CASES)
    assert all(("before" in entry) != entry["folder"] for entry in CASES)
