"""What a RegionPeer's status says, from what the routers say."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat_crds.peer_claims import PeerClaim, PeerFault, PeerRefusal
from heliostat_crds.status import Condition, PeerStatus
from heliostat_operator.observed.peer_report import RouterPeers, parse_router_peers
from heliostat_operator.observed.peer_status import PeerObservation, is_news, observe_peer

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)


def router(state: str | None, **fields: Any) -> RouterPeers:
    """A router's answer about the region `eu`; with state None it does not know the peer."""
    told = {"region": "eu", "state": state, "last_seen_seconds": 0.1, **fields}
    parsed = parse_router_peers(
        {"region": "us", "router": "a", "peers": [] if state is None else [told], "siblings": []}
    )
    assert parsed is not None
    return parsed


def status_of(
    routers: Sequence[RouterPeers | None],
    *,
    previous: Sequence[Condition] = (),
    now: datetime = NOW,
    spec_problem: str = "",
    refusal: PeerRefusal | None = None,
) -> PeerStatus:
    region = "" if spec_problem else "eu"
    return observe_peer(PeerObservation(3, region, routers, previous, now, spec_problem, refusal))


def told(status: PeerStatus) -> list[tuple[str, str, str]]:
    return [(it.type, it.status.value, it.reason) for it in status.conditions]


def written(status: PeerStatus) -> dict[str, Any]:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


@pytest.mark.parametrize(
    ("routers", "connected", "reason", "degraded", "message"),
    [
        ([], "Unknown", "NoRouters", "Unknown", "no router runs here"),
        ([None, None], "Unknown", "RoutersUnreadable", "Unknown", "no router tells of its peers"),
        (
            [router(None), None],
            "Unknown",
            "Pending",
            "Unknown",
            "the routers have not taken it up yet",
        ),
        ([router("Connected")], "True", "Connected", "False", "1 router reaches it"),
        (
            [router("Connected"), router("Connected"), None],
            "True",
            "Connected",
            "False",
            "2 routers reach it; 1 more does not tell",
        ),
        (
            [router("Connected"), router("Unreachable", reason="Silent")],
            "True",
            "Degraded",
            "True",
            "1 of 2 routers does not reach it: Silent",
        ),
        (
            [router("Degraded", reason="StateRefused"), router("Connected"), router(None)],
            "True",
            "Degraded",
            "True",
            "1 of 2 routers cannot use all that it tells: StateRefused; 1 more does not tell",
        ),
        (
            [
                router("Unreachable", reason="Silent"),
                router("Unreachable", reason="Unresolved"),
                None,
                None,
            ],
            "False",
            "Unreachable",
            "True",
            "none of 2 routers reaches it: Silent, Unresolved; 2 more do not tell",
        ),
    ],
)
def test_the_state_is_that_of_all_routers_together(
    routers: list[RouterPeers | None], connected: str, reason: str, degraded: str, message: str
) -> None:
    """Connected if all reach it, Degraded if some do, Unreachable if none, else Unknown."""
    status = status_of(routers)
    first, second = status.conditions
    assert (first.type, first.status.value, first.reason) == ("Connected", connected, reason)
    assert (second.type, second.status.value) == ("Degraded", degraded)
    assert first.message == second.message == message
    assert first.observed_generation == status.observed_generation == 3


def test_measures_are_combined_honestly() -> None:
    """Counts add up, the longest round trip counts, and whoever heard it last."""
    status = status_of(
        [
            router(
                "Connected", round_trip_seconds=0.0834, sent=3, received=1, identity="spiffe://x"
            ),
            router("Connected", round_trip_seconds=0.1, sent=4, last_seen_seconds=7),
            router("Unreachable", round_trip_seconds=9.0, received=2, last_seen_seconds=90),
        ]
    )
    assert (status.round_trip, status.sent, status.received) == ("100ms", 7, 3)
    assert (status.last_seen, status.identity) == ("2026-05-01T11:59:59Z", "spiffe://x")


def test_what_was_never_heard_is_left_out() -> None:
    """No measure is made up for a peer that never answered, and none shown as present."""
    status = status_of([router("Unreachable", last_seen_seconds=None, identity="spiffe://x")])
    assert (status.round_trip, status.last_seen, status.identity) == ("", None, "")
    assert written(status).get("lastSeen") is None


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (PeerFault.OWN_REGION, "OwnRegion"),
        (PeerFault.REGION_TAKEN, "RegionTaken"),
        (PeerFault.IDENTITY_TAKEN, "IdentityTaken"),
    ],
)
def test_a_peer_that_is_passed_over_says_why(fault: PeerFault, reason: str) -> None:
    """What the routers tell of its region is about another peer."""
    refusal = PeerRefusal(fault, PeerClaim("h/eu", 0.0, "eu", "spiffe://x"), "h/other")
    status = status_of([router("Connected", sent=4)], refusal=refusal)
    assert told(status) == [("Connected", "False", reason), ("Degraded", "True", "NotInForce")]
    assert status.conditions[0].message == str(refusal)
    assert status.sent == 0


def test_a_spec_that_cannot_be_read_says_so() -> None:
    """The problem is the message of both conditions."""
    status = status_of([router("Connected")], spec_problem="spec.roundTrip: no")
    assert told(status)[0] == ("Connected", "False", "InvalidSpec")
    assert status.conditions[1].message == "spec.roundTrip: no"


def test_a_condition_keeps_the_time_of_its_last_change() -> None:
    """Only a changed status is a transition; another reason is none."""
    first = status_of([router("Connected")])
    later = NOW + timedelta(minutes=5)
    both = [router("Connected"), router("Unreachable")]
    second = status_of(both, previous=first.conditions, now=later)
    connected, degraded = second.conditions
    assert connected.last_transition_time == "2026-05-01T12:00:00Z"
    assert degraded.last_transition_time == "2026-05-01T12:05:00Z"


def test_what_moves_on_by_itself_is_no_news() -> None:
    """Counts, the last sign of life and a jittering round trip alone are not worth a write."""
    before = status_of([router("Connected", round_trip_seconds=0.1, sent=1)])
    later = NOW + timedelta(seconds=30)

    def news(answer: RouterPeers | None) -> bool:
        now = status_of([answer], previous=before.conditions, now=later)
        assert now != before
        return is_news(written(before), written(now))

    assert not news(router("Connected", round_trip_seconds=0.11, sent=9))
    assert news(router("Connected", round_trip_seconds=0.13, sent=9))
    assert news(router("Connected", sent=9))
    assert news(router("Connected", round_trip_seconds=0.1, identity="spiffe://x"))
    assert news(router("Degraded", round_trip_seconds=0.1))
    assert news(None)
    assert is_news({}, written(before))


@pytest.mark.parametrize(
    "answer", [None, [], "no", {}, {"peers": {}}, {"region": "us", "peers": "eu"}]
)
def test_what_is_no_answer_of_a_router_counts_as_none(answer: Any) -> None:
    """A page of another program, or one without peers, tells nothing."""
    assert parse_router_peers(answer) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=5,
)
FIELDS = (
    "reason",
    "round_trip_seconds",
    "last_seen_seconds",
    "sent",
    "received",
    "identity",
    "region",
    "state",
)


@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), json_values)), st.booleans())
def test_whatever_a_router_says_gives_a_status(peers: list[Any], known: bool) -> None:
    """No value in an answer makes the operator fail, or write what the API server refuses."""
    for peer in peers:
        if known:
            peer.update(region="eu", state="Connected")
    status = status_of([parse_router_peers({"region": "us", "peers": peers})])
    assert status.sent >= 0
    assert PeerStatus.model_validate(written(status)) == status
    assert all(0 < len(it.message) <= 1000 for it in status.conditions)
