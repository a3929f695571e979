"""What a router says of itself, taken from its JSON: an answer of another shape is an error.

Names are cut and freed of what a terminal would obey, for peers' names come from elsewhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

_NAME_CHARACTERS = 63
_T = TypeVar("_T")


class AnswerError(ValueError):
    """Not what a router's admin port answers."""


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """One pool of the region that was asked."""

    pool: str
    endpoints: int
    ready: int
    """Endpoints that are meant to serve and do."""
    free: int
    """Those of them that would take a request now."""
    inflight: int
    queued: int


@dataclass(frozen=True, slots=True)
class PeerPoolStatus:
    """One pool of a peer, by what the peer last said."""

    pool: str
    free: int
    """Requests that would start at once."""
    queued: int
    wait_seconds: float | None
    load: float | None
    """Mean requests of an endpoint."""


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """Another region, as the router that was asked sees it."""

    region: str
    state: str
    reason: str
    """Empty where there is nothing to explain."""
    round_trip_seconds: float | None
    last_seen_seconds: float | None
    sent: int
    received: int
    refused: int
    pools: tuple[PeerPoolStatus, ...]


@dataclass(frozen=True, slots=True)
class SiblingStatus:
    """Another router of the region."""

    router: str
    state: str


@dataclass(frozen=True, slots=True)
class RouterStatus:
    """A router and all that it knows."""

    region: str
    """Empty where it is of no federation."""
    router: str
    pools: tuple[PoolStatus, ...]
    peers: tuple[PeerStatus, ...]
    siblings: tuple[SiblingStatus, ...]
    problems: tuple[str, ...]
    """What is wrong with its manifests."""
    silent_engines: tuple[str, ...]
    """Those that give no metrics, each with the reason."""


def read_router(pools: object, peers: object | None) -> RouterStatus:
    """From the answers of /pools and /peers, the latter None where there is none.

    Raises AnswerError.
    """
    try:
        federation = _mapping(peers) if peers is not None else {}
        return RouterStatus(
            region=_name(federation.get("region") or ""),
            router=_name(federation.get("router") or ""),
            pools=_each(_mapping(pools)["pools"], _pool),
            peers=_each(federation.get("peers") or [], _peer),
            siblings=_each(federation.get("siblings") or [], _sibling),
            problems=_each(
                _mapping(pools).get("problems") or [], lambda text: _printable(str(text))
            ),
            silent_engines=_each(_mapping(pools).get("silent_engines") or [], _silent_engine),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AnswerError("its answer is not a router's") from error


def _each(values: object, read: Callable[[Any], _T]) -> tuple[_T, ...]:
    if not isinstance(values, list):
        raise TypeError("not a list")
    return tuple(read(value) for value in values)


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


def _pool(value: object) -> PoolStatus:
    pool = _mapping(value)
    endpoints = [_mapping(endpoint) for endpoint in pool["endpoints"]]
    working = [e for e in endpoints if e["phase"] == "ready" and e["breaker"] == "closed"]
    return PoolStatus(
        pool=_name(pool["pool"]),
        endpoints=len(endpoints),
        ready=len(working),
        free=sum(bool(endpoint["available"]) for endpoint in working),
        inflight=int(pool["inflight"]),
        queued=int(pool["queued"]),
    )


def _silent_engine(value: object) -> str:
    engine = _mapping(value)
    return f"{_name(engine['endpoint'])} ({_name(engine['reason'])})"


def _peer(value: object) -> PeerStatus:
    peer = _mapping(value)
    return PeerStatus(
        region=_name(peer["region"]),
        state=_name(peer["state"]),
        reason=_name(peer.get("reason") or ""),
        round_trip_seconds=_optional(peer.get("round_trip_seconds")),
        last_seen_seconds=_optional(peer.get("last_seen_seconds")),
        sent=int(peer.get("sent") or 0),
        received=int(peer.get("received") or 0),
        refused=int(peer.get("refused") or 0),
        pools=_each(peer.get("pools") or [], _peer_pool),
    )


def _peer_pool(value: object) -> PeerPoolStatus:
    pool = _mapping(value)
    return PeerPoolStatus(
        pool=_name(pool["pool"]),
        free=int(pool.get("free") or 0),
        queued=int(pool.get("queued") or 0),
        wait_seconds=_optional(pool.get("wait_seconds")),
        load=_optional(pool.get("load")),
    )


def _sibling(value: object) -> SiblingStatus:
    sibling = _mapping(value)
    return SiblingStatus(_name(sibling["router"]), _name(sibling["state"]))


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a name")
    return _printable(value)[:_NAME_CHARACTERS]


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())


def _optional(value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise TypeError("not a number")
    return float(value)
