"""The table of refused specs, as the API server sees it; a folder's side is in tests/crds."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from heliostat_cluster.errors import ClusterError
from heliostat_cluster.region import Region

pytestmark = pytest.mark.asyncio(loop_scope="session")

TABLE = Path(__file__).parents[3] / "tests" / "crds" / "refused.yaml"
CASES: list[dict[str, Any]] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_namespace(region: Region) -> AsyncIterator[str]:
    """Give one namespace for the whole table: hardly anything in it is accepted."""
    async with region.namespace("refused") as name:
        yield name


def whole(manifest: dict[str, Any], namespace: str) -> dict[str, Any]:
    metadata = {"name": "refused", **manifest.get("metadata", {}), "namespace": namespace}
    head = {"apiVersion": "heliostat.dev/v1alpha1", "kind": "InferencePool"}
    return {**head, **manifest, "metadata": metadata}


@pytest.mark.parametrize("entry", CASES, ids=lambda entry: str(entry["case"]))
async def test_the_api_server_refuses_it(
    region: Region, shared_namespace: str, entry: dict[str, Any]
) -> None:
    """`kubectl apply` of a bad spec fails, with a message that says what to do."""
    if "before" in entry:
        await region.apply(whole(entry["before"], shared_namespace))
    with pytest.raises(ClusterError) as refused:
        await region.apply(whole(entry["manifest"], shared_namespace))
    assert entry.get("server_message", entry["message"]) in str(refused.value)


async def test_defaults_and_columns_are_shown(region: Region, shared_namespace: str) -> None:
    """A bare manifest is stored with its defaults, and `kubectl get` shows the columns."""
    bare = {"metadata": {"name": "bare"}, "spec": {"model": {"name": "bare"}, "replicas": 0}}
    await region.apply(whole(bare, shared_namespace))
    place = ("hpool", "bare", "--namespace", shared_namespace)
    stored = json.loads(await region.cluster.kubectl("get", *place, "--output", "json"))
    assert stored["spec"]["engine"]["startupTimeout"] == "30m"
    assert stored["spec"]["rollout"] == {"strategy": "Surge"}
    header = (await region.cluster.kubectl("get", *place)).splitlines()[0]
    assert header.split() == ["NAME", "MODEL", "DESIRED", "READY", "STATUS", "MESSAGE", "AGE"]


async def test_every_field_is_explained(region: Region) -> None:
    """`kubectl explain` tells meaning, bounds and default."""
    told = await region.cluster.kubectl("explain", "hpool.spec.engine.port")
    assert "Port that the engines listen on" in told
    assert "1 to 65535. Default: 8000." in " ".join(told.split())
