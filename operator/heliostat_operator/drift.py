"""Whether an object in the cluster still is what we want: only what we set counts.

The API server fills in defaults, and others may add what we do not speak of. So every field that
we set must be there and be the same; fields that we do not set are not looked at.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from heliostat_crds.quantity import QuantityError, parse_quantity

_ATOMIC_LISTS = frozenset({"tolerations", "endpoints", "matchExpressions", "nodeSelectorTerms"})
"""Lists of mappings that belong to one owner as a whole: another's item does not belong there."""
_QUANTITIES = frozenset({"requests", "limits", "sizeLimit"})
"""Fields in which the API server writes `1024Mi` as `1Gi`."""


def differs(desired: Any, live: Any, field: str = "") -> bool:
    """Whether something that is desired is not so; what is empty may as well be absent."""
    if not desired and desired is not None and live is None:
        return False
    if isinstance(desired, Mapping):
        if not isinstance(live, Mapping):
            return True
        below = field if field in _QUANTITIES else ""
        return any(differs(value, live.get(key), below or key) for key, value in desired.items())
    if isinstance(desired, list):
        return not isinstance(live, list) or _list_differs(desired, live, field)
    if field in _QUANTITIES and desired != live:
        return not _same_quantity(desired, live)
    return bool(desired != live)


def _list_differs(desired: Sequence[Any], live: Sequence[Any], field: str) -> bool:
    if field not in _ATOMIC_LISTS and all(isinstance(item, Mapping) for item in desired):
        return any(all(differs(item, other) for other in live) for item in desired)
    if len(desired) != len(live):
        return True
    return any(differs(item, other) for item, other in zip(desired, live, strict=True))


def _same_quantity(one: Any, other: Any) -> bool:
    try:
        return parse_quantity(one) == parse_quantity(other)
    except (QuantityError, TypeError):
        return False
