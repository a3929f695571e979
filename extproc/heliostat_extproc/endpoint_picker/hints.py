"""What a gateway says in metadata: where to pick, and who has served."""

from typing import Any

from heliostat_extproc.endpoint_picker.names import SERVED_KEY, SUBSET_KEY, SUBSET_NAMESPACE
from heliostat_extproc.envoy import wire

MOST_SUBSET_ENDPOINTS = 20_000
_LONGEST_ADDRESS = 64


class HintError(Exception):
    """A hint is beyond all bounds."""


def read_subset(message: Any) -> frozenset[str] | None:
    """Read the endpoints that may be picked; None: any. A hint that names none leaves none."""
    value = _metadata(message, SUBSET_NAMESPACE, SUBSET_KEY)
    if value is None:
        return None
    if value.WhichOneof("kind") == "list_value":
        names = [item.string_value for item in value.list_value.values]
    else:
        names = value.string_value.split(",")
    if len(names) > MOST_SUBSET_ENDPOINTS:
        raise HintError(f"the subset hint names more than {MOST_SUBSET_ENDPOINTS} endpoints")
    return frozenset(name.strip() for name in names if 0 < len(name.strip()) <= _LONGEST_ADDRESS)


def read_served(message: Any) -> str | None:
    """Read which endpoint has answered; None where the gateway does not say."""
    value = _metadata(message, wire.LB_NAMESPACE, SERVED_KEY)
    if value is None or not 0 < len(value.string_value) <= _LONGEST_ADDRESS:
        return None
    return str(value.string_value)


def _metadata(message: Any, namespace: str, key: str) -> Any:
    if not message.HasField("metadata_context"):
        return None
    spaces = message.metadata_context.filter_metadata
    if namespace not in spaces or key not in spaces[namespace].fields:
        return None
    return spaces[namespace].fields[key]
