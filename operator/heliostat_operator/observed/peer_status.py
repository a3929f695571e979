"""The status of a peer: what all routers of this region together hear of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from heliostat_crds.conditions import (
    MAX_DETAIL_CHARACTERS,
    ConnectedReason,
    PeerConditionType,
    PeerDegradedReason,
)
from heliostat_crds.duration import DurationError, format_duration, parse_duration
from heliostat_crds.peer_claims import PeerFault, PeerRefusal
from heliostat_crds.status import Condition, ConditionStatus, PeerStatus
from heliostat_operator.observed.instant import format_instant
from heliostat_operator.observed.message import fitted
from heliostat_operator.observed.peer_report import LinkState, PeerReport, RouterPeers

_ROUND_TRIP_CHANGE_RATIO = 0.2
_ROUND_TRIP_CHANGE_SECONDS = 0.002
"""A round trip that differs by less than both is the same."""

_FAULT_REASONS = {
    PeerFault.OWN_REGION: ConnectedReason.OWN_REGION,
    PeerFault.REGION_TAKEN: ConnectedReason.REGION_TAKEN,
    PeerFault.IDENTITY_TAKEN: ConnectedReason.IDENTITY_TAKEN,
}
_CONNECTED_STATUS = {
    ConnectedReason.CONNECTED: ConditionStatus.TRUE,
    ConnectedReason.DEGRADED: ConditionStatus.TRUE,
    ConnectedReason.NO_ROUTERS: ConditionStatus.UNKNOWN,
    ConnectedReason.ROUTERS_UNREADABLE: ConditionStatus.UNKNOWN,
    ConnectedReason.PENDING: ConditionStatus.UNKNOWN,
}
_DEGRADED = {
    ConnectedReason.CONNECTED: (ConditionStatus.FALSE, PeerDegradedReason.AS_EXPECTED),
    ConnectedReason.DEGRADED: (ConditionStatus.TRUE, PeerDegradedReason.PARTLY_CONNECTED),
    ConnectedReason.UNREACHABLE: (ConditionStatus.TRUE, PeerDegradedReason.UNREACHABLE),
    ConnectedReason.NO_ROUTERS: (ConditionStatus.UNKNOWN, PeerDegradedReason.NOT_KNOWN),
    ConnectedReason.ROUTERS_UNREADABLE: (ConditionStatus.UNKNOWN, PeerDegradedReason.NOT_KNOWN),
    ConnectedReason.PENDING: (ConditionStatus.UNKNOWN, PeerDegradedReason.NOT_KNOWN),
}
_PASSED_OVER = (ConditionStatus.TRUE, PeerDegradedReason.NOT_IN_FORCE)


@dataclass(frozen=True, slots=True)
class PeerObservation:
    """A peer and what is heard of it.

    `region` is empty where the object cannot be read as a peer; `spec_problem` then says why.
    `routers` are the answers of all routers, None of one that gave none. `previous` are the
    conditions in the object's present status.
    """

    generation: int
    region: str
    routers: Sequence[RouterPeers | None]
    previous: Sequence[Condition]
    now: datetime
    spec_problem: str = ""
    refusal: PeerRefusal | None = None


class _Verdict(NamedTuple):
    reason: ConnectedReason
    message: str


def observe_peer(observation: PeerObservation) -> PeerStatus:
    """Give the peer's status, the whole of it."""
    verdict = _verdict(observation)
    told = _told(observation)
    heard = [it for it in told if it.state is not LinkState.UNREACHABLE]
    degraded = _DEGRADED.get(verdict.reason, _PASSED_OVER)
    connected = _CONNECTED_STATUS.get(verdict.reason, ConditionStatus.FALSE), verdict.reason
    seen_seconds = _over(min, told, lambda it: it.last_seen_seconds)
    round_trip_seconds = _over(max, heard, lambda it: it.round_trip_seconds)
    return PeerStatus.model_validate(
        {
            "observedGeneration": observation.generation,
            "roundTrip": "" if round_trip_seconds is None else _rounded(round_trip_seconds),
            "lastSeen": None if seen_seconds is None else _ago(observation.now, seen_seconds),
            "sent": sum(it.sent for it in told),
            "received": sum(it.received for it in told),
            "identity": next((it.identity for it in heard if it.identity), ""),
            "conditions": [
                _condition(observation, PeerConditionType.CONNECTED, *connected, verdict.message),
                _condition(observation, PeerConditionType.DEGRADED, *degraded, verdict.message),
            ],
        }
    )


def is_news(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a status says something new; counts and instants that move on by themselves do not.

    Both are as the API server holds them.
    """
    settled = ("observedGeneration", "conditions", "identity")
    if any(before.get(field) != now.get(field) for field in settled):
        return True
    old, new = _seconds_of(before.get("roundTrip")), _seconds_of(now.get("roundTrip"))
    if old is None or new is None:
        return old is not new
    change = abs(new - old)
    return change > max(_ROUND_TRIP_CHANGE_SECONDS, _ROUND_TRIP_CHANGE_RATIO * old)


def _verdict(observation: PeerObservation) -> _Verdict:
    if observation.spec_problem:
        return _Verdict(ConnectedReason.INVALID_SPEC, observation.spec_problem)
    if observation.refusal is not None:
        return _Verdict(_FAULT_REASONS[observation.refusal.fault], str(observation.refusal))
    if not observation.routers:
        return _Verdict(ConnectedReason.NO_ROUTERS, "no router runs here")
    told = _told(observation)
    if told:
        return _combined(told, silent=len(observation.routers) - len(told))
    if any(observation.routers):
        return _Verdict(ConnectedReason.PENDING, "the routers have not taken it up yet")
    return _Verdict(ConnectedReason.ROUTERS_UNREADABLE, "no router tells of its peers")


def _combined(told: Sequence[PeerReport], silent: int) -> _Verdict:
    """Give the state that all reports together are; a router that does not tell counts as none."""
    away = sum(it.state is LinkState.UNREACHABLE for it in told)
    worse = [it for it in told if it.state is not LinkState.CONNECTED]
    why = ", ".join(sorted({it.reason for it in worse if it.reason}))
    silence = f"; {silent} more {'does' if silent == 1 else 'do'} not tell" if silent else ""
    if not worse:
        return _Verdict(ConnectedReason.CONNECTED, f"{_routers(len(told))} it{silence}")
    because = f": {why}" if why else ""
    if away == len(told):
        message = f"none of {_counted(away)} reaches it{because}{silence}"
        return _Verdict(ConnectedReason.UNREACHABLE, message)
    if away:
        message = f"{away} of {_counted(len(told))} {'does' if away == 1 else 'do'} not reach it"
    else:
        message = f"{len(worse)} of {_counted(len(told))} cannot use all that it tells"
    return _Verdict(ConnectedReason.DEGRADED, f"{message}{because}{silence}")


def _routers(number: int) -> str:
    return f"{_counted(number)} {'reaches' if number == 1 else 'reach'}"


def _counted(number: int) -> str:
    return f"{number} router{'' if number == 1 else 's'}"


def _told(observation: PeerObservation) -> list[PeerReport]:
    """Give the reports on the peer: none where it is passed over."""
    if observation.refusal is not None or observation.spec_problem:
        return []
    answers = (router for router in observation.routers if router is not None)
    found = (router.peers.get(observation.region) for router in answers)
    return [report for report in found if report is not None]


def _over(
    choose: Callable[[Sequence[float]], float],
    reports: Sequence[PeerReport],
    value: Callable[[PeerReport], float | None],
) -> float | None:
    known = [found for report in reports if (found := value(report)) is not None]
    return choose(known) if known else None


def _rounded(seconds: float) -> str:
    """Write a duration in whole milliseconds, one below at least 1 as such."""
    return format_duration(max(1, round(seconds * 1000)) / 1000)


def _ago(now: datetime, seconds: float) -> str | None:
    try:
        return format_instant(now - timedelta(seconds=seconds))
    except OverflowError:
        return None


def _seconds_of(text: Any) -> float | None:
    try:
        return parse_duration(text) if text else None
    except DurationError:
        return None


def _condition(
    observation: PeerObservation,
    kind: PeerConditionType,
    status: ConditionStatus,
    reason: ConnectedReason | PeerDegradedReason,
    message: str,
) -> Condition:
    """Write the condition; its time stays what it was while its status does."""
    before = next((it for it in observation.previous if it.type == kind.value), None)
    since = before.last_transition_time if before is not None and before.status is status else None
    return Condition.model_validate(
        {
            "type": kind.value,
            "status": status,
            "reason": reason.value,
            "message": fitted(message, MAX_DETAIL_CHARACTERS) or reason.value,
            "lastTransitionTime": since or format_instant(observation.now),
            "observedGeneration": observation.generation,
        }
    )
