"""A log of (now, event, commands) that replays: the way to take a production incident into a test.

One JSON-ready dict per event. A dataclass is written as its fields plus its name under `type`, a
frozenset as its sorted members under `set`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Any, get_args, get_type_hints

from heliostat_routing.capacity import PoolCapacity
from heliostat_routing.commands import Command
from heliostat_routing.errors import RecordingError
from heliostat_routing.events import EngineMetrics, Event, PeerSettings, SiblingQueue
from heliostat_routing.learned import LineSamples, TokenSamples
from heliostat_routing.router import Router
from heliostat_routing.settings import EndpointSettings, PoolSettings

_TYPES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        *get_args(Event),
        EndpointSettings,
        EngineMetrics,
        LineSamples,
        PeerSettings,
        PoolCapacity,
        PoolSettings,
        SiblingQueue,
        TokenSamples,
    )
}
_ENUMS: dict[str, dict[str, type[StrEnum]]] = {
    name: {
        field: hint
        for field, hint in get_type_hints(cls).items()
        if isinstance(hint, type) and issubclass(hint, StrEnum)
    }
    for name, cls in _TYPES.items()
}


@dataclass(frozen=True, slots=True)
class Step:
    """One replayed event: the commands that were recorded and those that come now, encoded."""

    now: float
    event: Event
    recorded: list[Any]
    replayed: list[Any]


def encode_step(now: float, event: Event, commands: Iterable[Command]) -> dict[str, Any]:
    """One line of a recording."""
    return {"now": now, "event": _encode(event), "commands": [_encode(c) for c in commands]}


def decode_event(data: Mapping[str, Any]) -> Event:
    """The event of a line. Raises RecordingError if it is none."""
    event = _decode(data)
    if not isinstance(event, get_args(Event)):
        raise RecordingError(f"not an event: {data!r:.80}")
    return event  # type: ignore[no-any-return]


def replay(lines: Iterable[Mapping[str, Any]]) -> Iterator[Step]:
    """Feed a recording to a fresh router. Raises RecordingError at a line that is not a step."""
    router = Router()
    for line in lines:
        try:
            now, event, recorded = line["now"], decode_event(line["event"]), line["commands"]
        except KeyError as error:
            raise RecordingError(f"a step lacks {error}") from error
        yield Step(now, event, recorded, [_encode(c) for c in router.handle(event, now)])


def _encode(value: Any) -> Any:
    if is_dataclass(value):
        encoded = {field.name: _encode(getattr(value, field.name)) for field in fields(value)}
        return {"type": type(value).__name__, **encoded}
    if isinstance(value, frozenset):
        return {"set": sorted(value)}
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    return value.value if isinstance(value, StrEnum) else value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    if not isinstance(value, Mapping):
        return value
    if "set" in value:
        return frozenset(value["set"])
    name = value.get("type")
    cls = _TYPES.get(str(name))
    if cls is None:
        raise RecordingError(f"unknown type {name!r}")
    enums = _ENUMS[cls.__name__]
    try:
        arguments = {
            field: enums[field](item) if field in enums else _decode(item)
            for field, item in value.items()
            if field != "type"
        }
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise RecordingError(f"malformed {name}: {error}") from error
