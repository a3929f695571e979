"""Kubernetes' strategic merge patch, for pod templates.

Mappings merge key by key, and null takes a key away. Lists whose items have an identity (containers
by name, mounts by path, ...) merge item by item; every other list is replaced as a whole.
Directives: `$patch: delete` takes an item or mapping away, `$patch: replace` puts the patch in the
place of what was there, `$patch: merge` is what happens anyhow; `$retainKeys: [...]` drops the
other keys of a mapping. Kubernetes' directives about the order of lists, which only programs
write, are refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from heliostat_kube.resource import Json

_PATCH = "$patch"
_RETAIN = "$retainKeys"
_KNOWN = (_PATCH, _RETAIN)


class PodTemplateError(ValueError):
    """The patch cannot be merged; the message names the field, from `spec.podTemplate` on."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """How the mapping at one place of a pod template merges.

    `lists` are the fields that hold lists whose items merge, `mappings` those whose mappings hold
    such lists; every other mapping merges key by key, every other list is replaced.
    """

    lists: Mapping[str, "_ListShape"] = field(default_factory=dict)
    mappings: Mapping[str, "_Shape"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _ListShape:
    """How a list merges: by which fields its items are known, and how the items merge.

    `defaults` are values of key fields that an item may leave out.
    """

    keys: tuple[str, ...]
    item: _Shape = field(default_factory=_Shape)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def identity(self, item: Json, path: str) -> tuple[Any, ...]:
        """Give what tells the item from the others."""
        values = []
        for key in self.keys:
            value = item.get(key, self.defaults.get(key))
            if not isinstance(value, str | int):
                raise PodTemplateError(f"{path}: {key} is missing; items are merged by it")
            values.append(value)
        return tuple(values)


_CONTAINER = _Shape(
    lists={
        "env": _ListShape(("name",)),
        "ports": _ListShape(("containerPort", "protocol"), defaults={"protocol": "TCP"}),
        "volumeDevices": _ListShape(("devicePath",)),
        "volumeMounts": _ListShape(("mountPath",)),
    }
)
_POD_SPEC = _Shape(
    lists={
        "containers": _ListShape(("name",), _CONTAINER),
        "ephemeralContainers": _ListShape(("name",), _CONTAINER),
        "hostAliases": _ListShape(("ip",)),
        "imagePullSecrets": _ListShape(("name",)),
        "initContainers": _ListShape(("name",), _CONTAINER),
        "resourceClaims": _ListShape(("name",)),
        "schedulingGates": _ListShape(("name",)),
        "topologySpreadConstraints": _ListShape(("topologyKey",)),
        "volumes": _ListShape(("name",)),
    }
)
_POD_TEMPLATE = _Shape(mappings={"spec": _POD_SPEC})


def merge_pod_template(template: Json, patch: Json) -> Json:
    """Give the template with the patch merged over it; neither is changed."""
    return _merge_mapping(template, patch, _POD_TEMPLATE, "spec.podTemplate")


def _merge_mapping(original: Json, patch: Json, shape: _Shape, path: str) -> Json:
    directive = _directive(patch, path)
    if directive == "delete":
        return {}
    merged = {} if directive == "replace" else _retained(original, patch, path)
    for key, change in patch.items():
        if key in _KNOWN:
            continue
        if change is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge_value(merged.get(key), change, shape, key, f"{path}.{key}")
    return merged


def _directive(patch: Json, path: str) -> str:
    for key in patch:
        if key.startswith("$") and key not in _KNOWN:
            raise PodTemplateError(f"{path}: {key} is not supported; use {' or '.join(_KNOWN)}")
    directive = patch.get(_PATCH, "merge")
    if directive not in ("delete", "merge", "replace"):
        raise PodTemplateError(f'{path}.{_PATCH}: "{directive}" is not delete, merge or replace')
    return str(directive)


def _retained(original: Json, patch: Json, path: str) -> Json:
    if _RETAIN not in patch:
        return dict(original)
    kept = patch[_RETAIN]
    if not isinstance(kept, list):
        raise PodTemplateError(f"{path}.{_RETAIN}: expected a list")
    return {key: value for key, value in original.items() if key in kept}


def _merge_value(original: Any, change: Any, shape: _Shape, key: str, path: str) -> Any:
    listed = shape.lists.get(key)
    if listed is not None:
        if not isinstance(change, list):
            raise PodTemplateError(f"{path}: expected a list")
        return _merge_list(original if isinstance(original, list) else [], change, listed, path)
    if isinstance(change, Mapping):
        below = original if isinstance(original, Mapping) else {}
        nested = shape.mappings.get(key, _Shape())
        return _merge_mapping(dict(below), dict(change), nested, path)
    if key in shape.mappings:
        raise PodTemplateError(f"{path}: expected a mapping")
    return change


def _merge_list(
    original: Sequence[Any], patch: Sequence[Any], shape: _ListShape, path: str
) -> list[Any]:
    items = [_item(found, f"{path}[{index}]") for index, found in enumerate(patch)]
    if any(item.get(_PATCH) == "replace" for item in items):
        original = []
        items = [item for item in items if item.get(_PATCH) != "replace"]
    merged = [_item(found, path) for found in original]
    for index, item in enumerate(items):
        where = f"{path}[{index}]"
        identity = shape.identity(item, where)
        at = next((i for i, it in enumerate(merged) if shape.identity(it, path) == identity), None)
        if item.get(_PATCH) == "delete":
            merged = [it for it in merged if shape.identity(it, path) != identity]
        elif at is None:
            merged.append(_merge_mapping({}, item, shape.item, where))
        else:
            merged[at] = _merge_mapping(merged[at], item, shape.item, where)
    return merged


def _item(found: Any, path: str) -> Json:
    if not isinstance(found, Mapping):
        raise PodTemplateError(f"{path}: expected a mapping")
    return dict(found)
