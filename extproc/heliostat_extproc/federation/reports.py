"""How the links to other routers are, for operators and for the resources' status."""

from dataclasses import dataclass
from enum import StrEnum


class LinkState(StrEnum):
    """Whether the other end is heard."""

    CONNECTED = "Connected"
    DEGRADED = "Degraded"
    """Heard, but something of it cannot be used."""
    UNREACHABLE = "Unreachable"


class LinkReason(StrEnum):
    """Why a link is in its state."""

    HEARD = "Heard"
    NOT_HEARD_YET = "NotHeardYet"
    UNRESOLVED = "Unresolved"
    """The name of its address means nothing."""
    CONNECTION_FAILED = "ConnectionFailed"
    """It does not answer, or not as who it should be."""
    SILENT = "Silent"
    """It was heard, and is not any more."""
    IDENTITY_REFUSED = "IdentityRefused"
    """It does not serve this region's identity."""
    REPLACED = "Replaced"
    """Another stream has begun there that is of a router of the same name."""
    TOO_MANY_WATCHERS = "TooManyWatchers"
    WRONG_PLACE = "WrongPlace"
    """Who answers is not of that region, or not that router."""
    PROTOCOL_ERROR = "ProtocolError"
    """What it says makes no sense."""
    STATE_REFUSED = "StateRefused"
    """Some of what it says makes no sense, or is too much, and was left out."""
    BLOCK_KEYS_DIFFER = "BlockKeysDiffer"
    """It names prompts in another way, so what its caches hold is not known from it."""


@dataclass(frozen=True, slots=True)
class RemotePool:
    """A pool of another region, as all its routers together describe it."""

    pool: str
    free: int
    queued: int
    wait_seconds: float
    load: float


@dataclass(frozen=True, slots=True)
class PeerReport:
    """The link to one region. Counts are of this router since it began."""

    region: str
    state: LinkState
    reason: LinkReason
    round_trip_seconds: float | None
    last_seen_seconds: float | None
    """How long ago; None before the first time."""
    sent: int
    received: int
    refused: int
    identity: str
    address: str
    writers: tuple[str, ...]
    """Its routers whose state is known."""
    pools: tuple[RemotePool, ...]


@dataclass(frozen=True, slots=True)
class SiblingReport:
    """The link to another router of this region."""

    router: str
    state: LinkState
    reason: LinkReason
    round_trip_seconds: float | None
    last_seen_seconds: float | None
