"""`spec.podTemplate` merges over the operator's template just as Kubernetes merges patches."""

import copy
import json
import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from heliostat_operator.desired.strategic_merge import PodTemplateError, merge_pod_template

Json = dict[str, Any]


def merged_spec(spec: Json, patch: Json) -> Json:
    """Merge below `spec`."""
    return merge_pod_template({"spec": spec}, {"spec": patch})["spec"]


TABLE: dict[str, tuple[Json, Json, Json]] = {
    "a value replaces a value": ({"dnsPolicy": "A"}, {"dnsPolicy": "B"}, {"dnsPolicy": "B"}),
    "null takes a key away": ({"dnsPolicy": "A", "x": 1}, {"dnsPolicy": None}, {"x": 1}),
    "null of a missing key does nothing": ({"x": 1}, {"y": None}, {"x": 1}),
    "mappings merge": (
        {"nodeSelector": {"a": "1", "b": "2"}},
        {"nodeSelector": {"b": "3", "a": None}},
        {"nodeSelector": {"b": "3"}},
    ),
    "a mapping is replaced on request": (
        {"nodeSelector": {"a": "1"}},
        {"nodeSelector": {"$patch": "replace", "b": "2"}},
        {"nodeSelector": {"b": "2"}},
    ),
    "a mapping is emptied on request": (
        {"nodeSelector": {"a": "1"}},
        {"nodeSelector": {"$patch": "delete"}},
        {"nodeSelector": {}},
    ),
    "containers merge by name": (
        {"containers": [{"name": "a", "image": "x", "tty": True}, {"name": "b"}]},
        {"containers": [{"name": "a", "image": "y", "tty": None}]},
        {"containers": [{"name": "a", "image": "y"}, {"name": "b"}]},
    ),
    "a new container comes last": (
        {"containers": [{"name": "a"}]},
        {"containers": [{"name": "b", "image": "x", "tty": None}]},
        {"containers": [{"name": "a"}, {"name": "b", "image": "x"}]},
    ),
    "a container is deleted": (
        {"containers": [{"name": "a"}, {"name": "b"}]},
        {"containers": [{"name": "a", "$patch": "delete"}]},
        {"containers": [{"name": "b"}]},
    ),
    "a list is replaced": (
        {"containers": [{"name": "a"}, {"name": "b"}]},
        {"containers": [{"$patch": "replace"}, {"name": "c"}]},
        {"containers": [{"name": "c"}]},
    ),
    "variables merge by name": (
        {"containers": [{"name": "a", "env": [{"name": "K", "value": "1"}]}]},
        {"containers": [{"name": "a", "env": [{"name": "K", "value": "2"}, {"name": "L"}]}]},
        {"containers": [{"name": "a", "env": [{"name": "K", "value": "2"}, {"name": "L"}]}]},
    ),
    "ports merge by number and protocol": (
        {"containers": [{"name": "a", "ports": [{"containerPort": 1, "name": "x"}]}]},
        {
            "containers": [
                {
                    "name": "a",
                    "ports": [
                        {"containerPort": 1, "protocol": "TCP", "name": "y"},
                        {"containerPort": 1, "protocol": "UDP"},
                    ],
                }
            ]
        },
        {
            "containers": [
                {
                    "name": "a",
                    "ports": [
                        {"containerPort": 1, "protocol": "TCP", "name": "y"},
                        {"containerPort": 1, "protocol": "UDP"},
                    ],
                }
            ]
        },
    ),
    "mounts merge by path": (
        {"containers": [{"name": "a", "volumeMounts": [{"mountPath": "/m", "name": "v"}]}]},
        {"containers": [{"name": "a", "volumeMounts": [{"mountPath": "/m", "readOnly": True}]}]},
        {
            "containers": [
                {
                    "name": "a",
                    "volumeMounts": [{"mountPath": "/m", "name": "v", "readOnly": True}],
                }
            ]
        },
    ),
    "a volume gets another source": (
        {"volumes": [{"name": "v", "emptyDir": {}}]},
        {"volumes": [{"name": "v", "emptyDir": None, "nfs": {"server": "s"}}]},
        {"volumes": [{"name": "v", "nfs": {"server": "s"}}]},
    ),
    "only the retained keys stay": (
        {"volumes": [{"name": "v", "emptyDir": {}}]},
        {"volumes": [{"name": "v", "$retainKeys": ["name", "nfs"], "nfs": {"server": "s"}}]},
        {"volumes": [{"name": "v", "nfs": {"server": "s"}}]},
    ),
    "tolerations are replaced as a whole": (
        {"tolerations": [{"key": "a"}, {"key": "b"}]},
        {"tolerations": [{"key": "c"}]},
        {"tolerations": [{"key": "c"}]},
    ),
    "arguments are replaced as a whole": (
        {"containers": [{"name": "a", "args": ["1", "2"]}]},
        {"containers": [{"name": "a", "args": ["3"]}]},
        {"containers": [{"name": "a", "args": ["3"]}]},
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_patch_merges_as_documented(case: str) -> None:
    """Each rule of the merge holds in its simplest case."""
    spec, patch, expected = TABLE[case]
    assert merged_spec(spec, patch) == expected


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ({"containers": {"a": 1}}, "spec.podTemplate.spec.containers: expected a list"),
        ({"containers": ["a"]}, "spec.podTemplate.spec.containers[0]: expected a mapping"),
        (
            {"containers": [{"image": "x"}]},
            "spec.podTemplate.spec.containers[0]: name is missing; items are merged by it",
        ),
        (
            {"volumes": [{"name": "v", "$patch": "drop"}]},
            'spec.podTemplate.spec.volumes[0].$patch: "drop" is not delete, merge or replace',
        ),
        (
            {"$setElementOrder/containers": []},
            (
                "spec.podTemplate.spec: $setElementOrder/containers is not supported;"
                " use $patch or $retainKeys"
            ),
        ),
        ({"$retainKeys": "name"}, "spec.podTemplate.spec.$retainKeys: expected a list"),
    ],
)
def test_patch_that_cannot_be_merged_names_the_field(patch: Json, message: str) -> None:
    """A patch of the wrong shape is refused with the path of what is wrong."""
    with pytest.raises(PodTemplateError) as raised:
        merged_spec({"containers": [{"name": "a"}]}, patch)
    assert str(raised.value) == message


_words = st.sampled_from(["a", "b", "c"])
_maps = st.dictionaries(_words, _words, max_size=3)


def _listed(key: str, keys: st.SearchStrategy[Any], **fields: st.SearchStrategy[Any]) -> Any:
    item = st.fixed_dictionaries({key: keys}, optional=fields)
    return st.lists(item, max_size=3, unique_by=lambda it: it[key])


def _specs(optional: bool) -> st.SearchStrategy[Json]:
    """Pod specs, or patches: those may hold nulls, and directives in items."""
    value = st.none() | _words if optional else _words
    directive = {"$patch": st.just("delete")} if optional else {}
    env = _listed("name", _words, value=value, **directive)
    mounts = _listed("mountPath", _words, name=_words, subPath=value, **directive)
    ports = _listed("containerPort", st.integers(1, 3), name=value, hostIP=value, **directive)
    containers = _listed(
        "name",
        _words,
        image=value,
        workingDir=value,
        env=env,
        volumeMounts=mounts,
        ports=ports,
        args=st.lists(_words, max_size=2),
        **directive,
    )
    constraints = _listed("topologyKey", _words, whenUnsatisfiable=value, **directive)
    maps = st.dictionaries(_words, value, max_size=3)
    if optional:
        maps = maps | st.builds(lambda it: {**it, "$patch": "replace"}, _maps)
    return st.fixed_dictionaries(
        {},
        optional={
            "dnsPolicy": value,
            "nodeSelector": maps,
            "containers": containers,
            "initContainers": containers,
            "hostAliases": _listed("ip", _words, hostnames=st.lists(_words), **directive),
            "imagePullSecrets": _listed("name", _words, **directive),
            "volumes": _listed("name", _words, nfs=st.builds(lambda s: {"server": s}, _words)),
            "topologySpreadConstraints": constraints,
            "tolerations": st.lists(st.fixed_dictionaries({"key": _words}), max_size=2),
        },
    )


@given(_specs(False), _specs(True))
def test_merging_changes_neither_side_and_twice_is_once(spec: Json, patch: Json) -> None:
    """A merge leaves its inputs alone, and repeating it changes nothing more."""
    before = copy.deepcopy((spec, patch))
    once = merged_spec(spec, patch)
    assert (spec, patch) == before
    assert _sorted(merged_spec(once, patch)) == _sorted(once)


@given(_specs(False))
def test_an_empty_patch_changes_nothing(spec: Json) -> None:
    """Without a patch the template is what it was."""
    assert merged_spec(spec, {}) == spec
    assert merge_pod_template({"spec": spec}, {}) == {"spec": spec}


@given(_specs(False), _specs(True))
def test_no_directive_is_left_in_the_result(spec: Json, patch: Json) -> None:
    """What is applied holds no directive and no null."""
    text = json.dumps(merged_spec(spec, patch))
    assert "$patch" not in text
    assert "null" not in text


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl merges as the API server does")
@settings(
    max_examples=30,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(_specs(False), _specs(True))
def test_kubectl_merges_the_same(spec: Json, patch: Json) -> None:
    """Kubernetes' own implementation gives the same template, but for the order of lists.

    There, a directive about something that is not in the template is taken for a field; here it
    has nothing to do. Such directives are left out of the comparison.
    """
    patch = _without_idle_directives(spec, patch)
    whole = {"apiVersion": "v1", "kind": "PodTemplate", "template": {"spec": spec}}
    answer = subprocess.run(
        [
            *("kubectl", "patch", "--local", "-f", "-", "-o", "json", "--type", "strategic"),
            *("-p", json.dumps({"template": {"spec": patch}})),
        ],
        input=json.dumps(whole),
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    theirs = json.loads(answer.stdout)["template"].get("spec", {})
    assert _sorted(_filled(merged_spec(spec, patch))) == _sorted(_filled(theirs))


_KEYS = ("name", "mountPath", "containerPort", "topologyKey", "ip")


def _without_idle_directives(original: Any, patch: Any) -> Any:
    if isinstance(patch, dict):
        below = original if isinstance(original, dict) else {}
        return {
            key: _without_idle_directives(below.get(key), value)
            for key, value in patch.items()
            if key != "$patch" or original
        }
    if isinstance(patch, list) and all(isinstance(it, dict) for it in patch):
        there = {_identity(it): it for it in original or ()}
        return [
            _without_idle_directives(there.get(_identity(it)), it)
            for it in patch
            if it.get("$patch") != "delete" or _identity(it) in there
        ]
    return patch


def _identity(item: Json) -> Any:
    return next((item[key] for key in _KEYS if key in item), None)


def _filled(value: Any) -> Any:
    """Leave out what is empty, and what types make of it: neither means anything."""
    if isinstance(value, dict):
        filled = {key: _filled(item) for key, item in value.items()}
        return {k: v for k, v in filled.items() if v not in ({}, [], "", None, 0)}
    if isinstance(value, list):
        return [_filled(item) for item in value]
    return value


def _sorted(value: Any) -> Any:
    """Put lists of mappings in one order: for merged lists both have their own."""
    if isinstance(value, dict):
        return {key: _sorted(item) for key, item in value.items()}
    if isinstance(value, list):
        items = [_sorted(item) for item in value]
        return items if all(isinstance(it, str) for it in items) else sorted(items, key=_canonical)
    return value


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
