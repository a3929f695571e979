"""What counts as a foreign edit of an object of ours."""

import copy
from typing import Any

import pytest

from heliostat_operator.drift import differs

DESIRED: dict[str, Any] = {
    "metadata": {"labels": {"a": "1"}},
    "spec": {
        "replicas": 2,
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "containers": [
            {
                "name": "engine",
                "args": ["--model", "m"],
                "env": [{"name": "HF_HOME", "value": "/cache"}],
                "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}},
                "ports": [],
            }
        ],
    },
}


def live() -> dict[str, Any]:
    """The object as an API server gives it back: with defaults and canonical quantities."""
    obj = copy.deepcopy(DESIRED)
    obj["metadata"]["labels"]["other"] = "2"
    obj["spec"]["schedulerName"] = "default-scheduler"
    container = obj["spec"]["containers"][0]
    container["terminationMessagePath"] = "/dev/termination-log"
    container["resources"]["limits"] = {"cpu": "500m", "memory": "1Gi"}
    del container["ports"]
    return obj


def test_defaults_are_no_drift() -> None:
    """What the API server adds or writes otherwise is not an edit."""
    assert not differs(DESIRED, live())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("metadata", "labels", "a"), "2"),
        (("spec", "replicas"), 3),
        (("spec", "containers", 0, "name"), "renamed"),
        (("spec", "containers", 0, "args"), ["--model", "other"]),
        (("spec", "containers", 0, "args"), ["--model", "m", "--more"]),
        (("spec", "containers", 0, "env", 0, "value"), "/tmp"),  # noqa: S108 - a value, no file
        (("spec", "containers", 0, "resources", "limits", "memory"), "2Gi"),
        (("spec", "containers", 0, "resources", "limits"), None),
        (("spec", "tolerations"), []),
        (("spec", "tolerations"), [{"key": "gpu", "operator": "Exists"}, {"key": "x"}]),
    ],
)
def test_a_change_of_what_we_set_is_drift(path: tuple[str | int, ...], value: Any) -> None:
    """Every field that we set is held, wherever it stands."""
    edited = live()
    parent: Any = edited
    for part in path[:-1]:
        parent = parent[part]
    parent[path[-1]] = value
    assert differs(DESIRED, edited)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("metadata", "annotations"), {"kubectl.kubernetes.io/restartedAt": "now"}),
        (("spec", "containers", 0, "env"), [{"name": "X"}, {"name": "HF_HOME", "value": "/cache"}]),
        (("spec", "containers", 0, "livenessProbe"), {"periodSeconds": 1}),
    ],
)
def test_what_others_add_is_left_alone(path: tuple[str | int, ...], value: Any) -> None:
    """A restart by annotation, or a variable more, is nobody's business of ours."""
    edited = live()
    parent: Any = edited
    for part in path[:-1]:
        parent = parent[part]
    parent[path[-1]] = value
    assert not differs(DESIRED, edited)
