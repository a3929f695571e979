"""What a pod's object says of the endpoint in it."""

import json
from typing import Any

import pytest

from heliostat_extproc.discovery.engine_pod import parse_engine_pod
from heliostat_routing.settings import EndpointPhase


def pod(
    *,
    ready: bool = True,
    started: bool = True,
    state: str = "running",
    phase: str = "Running",
    annotations: dict[str, str] | None = None,
    **metadata: Any,
) -> dict[str, Any]:
    engine = {
        "name": "engine",
        "containerID": "c://2",
        "started": started,
        "state": {state: {}},
    }
    return {
        "metadata": {
            "name": "p",
            "namespace": "ns",
            "uid": "u",
            "labels": {"heliostat.dev/pool": "chat"},
            "annotations": annotations or {},
            **metadata,
        },
        "status": {
            "phase": phase,
            "podIP": "10.0.0.7",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"name": "sidecar", "state": {}}, engine],
        },
    }


@pytest.mark.parametrize(
    ("obj", "phase"),
    [
        (pod(), EndpointPhase.READY),
        (pod(ready=False), EndpointPhase.DRAINING),
        (pod(ready=False, started=False), None),
        (pod(deletionTimestamp="2026-01-01T00:00:00Z"), EndpointPhase.DRAINING),
        (pod(annotations={"heliostat.dev/drain": "2026-01-01T00:00:00Z"}), EndpointPhase.DRAINING),
        (pod(state="terminated"), None),
        (pod(state="waiting"), None),
        (pod(phase="Failed"), None),
        (pod(phase="Succeeded"), None),
        ({"metadata": {"name": "p"}}, None),
    ],
)
def test_only_a_ready_pod_that_stays_takes_requests(
    obj: dict[str, Any], phase: EndpointPhase | None
) -> None:
    """One that leaves, or is not ready any more, keeps what it has; others hold nothing."""
    assert parse_engine_pod(obj).phase is phase


@pytest.mark.parametrize(
    ("annotation", "adapters"),
    [
        (None, None),
        (json.dumps({"container": "c://2", "adapters": ["a", "b"]}), frozenset({"a", "b"})),
        (json.dumps({"container": "c://1", "adapters": ["a"]}), frozenset()),
        ("[", frozenset()),
        ("[]", frozenset()),
        ("{}", frozenset()),
    ],
)
def test_adapters_count_for_the_container_that_loaded_them(
    annotation: str | None, adapters: frozenset[str] | None
) -> None:
    """A restarted engine holds none until it is told again; nonsense means none."""
    annotations = {} if annotation is None else {"heliostat.dev/adapters": annotation}
    assert parse_engine_pod(pod(annotations=annotations)).adapters == adapters
