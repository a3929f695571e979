"""What routers say of their peers: the only ones who hear them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Any

_MAX_PEERS = 4096
_MAX_TEXT_CHARACTERS = 2048
_MAX_COUNT = 2**62


class LinkState(StrEnum):
    """Whether a router hears a peer."""

    CONNECTED = "Connected"
    DEGRADED = "Degraded"
    """It hears it, and cannot use something of what it hears."""
    UNREACHABLE = "Unreachable"


@dataclass(frozen=True, slots=True)
class PeerReport:
    """One router's view of one peer. `last_seen_seconds` is how long ago; None for never."""

    state: LinkState
    reason: str
    round_trip_seconds: float | None
    last_seen_seconds: float | None
    sent: int
    received: int
    identity: str


@dataclass(frozen=True, slots=True)
class RouterPeers:
    """One router's view of all its peers, by region; `region` is its own."""

    region: str
    peers: Mapping[str, PeerReport]


def parse_router_peers(answer: Any) -> RouterPeers | None:
    """Read a router's answer; None where it is none. What makes no sense is left out."""
    if not isinstance(answer, Mapping) or not isinstance(answer.get("peers"), list):
        return None
    return RouterPeers(_text(answer.get("region")), dict(_peers(answer["peers"][:_MAX_PEERS])))


def _peers(items: list[Any]) -> Iterator[tuple[str, PeerReport]]:
    for item in items:
        if not isinstance(item, Mapping) or item.get("state") not in tuple(LinkState):
            continue
        yield (
            _text(item.get("region")),
            PeerReport(
                state=LinkState(item["state"]),
                reason=_text(item.get("reason")),
                round_trip_seconds=_seconds(item.get("round_trip_seconds")),
                last_seen_seconds=_seconds(item.get("last_seen_seconds")),
                sent=_count(item.get("sent")),
                received=_count(item.get("received")),
                identity=_text(item.get("identity")),
            ),
        )


def _text(value: Any) -> str:
    return value[:_MAX_TEXT_CHARACTERS] if isinstance(value, str) else ""


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if value >= 0 and isfinite(value) else None


def _count(value: Any) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return min(value, _MAX_COUNT) if whole and value > 0 else 0
