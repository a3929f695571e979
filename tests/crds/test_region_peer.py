"""RegionPeers: what the core is told of them, and which of several are in force."""

from itertools import permutations
from typing import Any

import pytest

from heliostat_crds.manifest import parse_manifests
from heliostat_crds.peer_claims import PeerClaim, PeerFault, refused_peers
from heliostat_crds.region_peer import PeerError, RegionPeer
from heliostat_routing.events import PeerSettings

HEAD = "apiVersion: heliostat.dev/v1alpha1\n"
PEER = HEAD + (
    "kind: RegionPeer\nmetadata: {name: eu}\n"
    "spec: {region: eu-west, gateway: {address: 'eu:9443'}, identity: spiffe://a/b}\n"
)
POOL = HEAD + "kind: InferencePool\nmetadata: {name: chat}\nspec: {model: {name: llama}}\n"


def peer(**spec: Any) -> RegionPeer:
    return RegionPeer.from_object(
        {
            "apiVersion": "heliostat.dev/v1alpha1",
            "kind": "RegionPeer",
            "metadata": {"name": "eu", "namespace": "llm", "resourceVersion": "7"},
            "spec": {
                "region": "eu-west",
                "gateway": {"address": "eu:9443"},
                "identity": "spiffe://a/b",
                **spec,
            },
        }
    )


def claim(key: str, since: float, region: str, identity: str = "") -> PeerClaim:
    return PeerClaim(key, since, region, identity or f"spiffe://example/{region}")


def faults(*claims: PeerClaim, own: str | None = None) -> dict[str, PeerFault]:
    return {key: refusal.fault for key, refusal in refused_peers(claims, own).items()}


def test_a_bare_peer_is_a_usual_one() -> None:
    """A peer without options is 100 ms away, costs nothing, and is left for at once."""
    assert peer().peer_settings() == PeerSettings("eu-west", 0.1)
    assert peer().key == "llm/eu"


def test_every_field_reaches_the_core() -> None:
    """Each field that the core decides by is told in its unit."""
    told = peer(
        groups=["eu", "gdpr"], price={"perGiB": 0.02}, leaveAboveWait="250ms", roundTrip="80ms"
    )
    assert told.peer_settings() == PeerSettings(
        "eu-west", 0.08, frozenset({"eu", "gdpr"}), price_per_gib=0.02, leave_above_seconds=0.25
    )


def test_an_object_that_is_no_peer_says_why_in_one_line() -> None:
    """What an older definition let through is told by its field."""
    with pytest.raises(PeerError, match=r"^spec\.gateway\.address: .* has a port out of range"):
        peer(gateway={"address": "eu:0"})


def test_a_file_may_hold_pools_and_peers() -> None:
    """Both kinds are read from one file, each with its line."""
    found = parse_manifests("all.yaml", f"{PEER}---\n{POOL}")
    assert found.problems == ()
    assert [(it.peer.spec.region, it.line) for it in found.peers] == [("eu-west", 1)]
    assert [(it.pool.key, it.line) for it in found.pools] == [("chat", 6)]
    alone = parse_manifests("peers.yaml", PEER)
    assert (alone.problems, alone.pools, len(alone.peers)) == ((), (), 1)


def test_what_is_wrong_with_a_peer_is_told_with_its_line() -> None:
    """Faults of a peer are told as those of a pool are."""
    text = PEER.replace("region: eu-west", "region: EU").replace("spec: {", "spec: {\n  ")
    (problem,) = parse_manifests("peers.yaml", text).problems
    assert str(problem).startswith('peers.yaml:5: spec.region: "EU" is not allowed; expected text')


def test_of_two_peers_that_are_one_region_the_older_is_in_force() -> None:
    """The order in which they are looked at makes no difference."""
    claims = (
        claim("b", 1.0, "eu"),
        claim("a", 2.0, "eu"),
        claim("c", 3.0, "asia"),
        claim("d", 3.0, "asia"),
    )
    for order in permutations(claims):
        assert faults(*order) == {"a": PeerFault.REGION_TAKEN, "d": PeerFault.REGION_TAKEN}
    refused = refused_peers(claims, None)
    assert str(refused["a"]) == 'spec.region: "eu" is RegionPeer b already'


def test_an_identity_is_that_of_one_region() -> None:
    """A second region cannot be told from the first by its certificate."""
    claims = (claim("a", 1.0, "eu", "spiffe://x/y"), claim("b", 2.0, "asia", "spiffe://x/y"))
    assert faults(*claims) == {"b": PeerFault.IDENTITY_TAKEN}


def test_a_peer_is_never_the_own_region() -> None:
    """Such a peer is refused, and takes neither region nor identity from another."""
    own, other = claim("a", 1.0, "us", "spiffe://x/y"), claim("b", 2.0, "eu", "spiffe://x/y")
    assert faults(own, other, own="us") == {"a": PeerFault.OWN_REGION}
    assert str(refused_peers([own], "us")["a"]) == 'spec.region: "us" is this region itself'
    assert faults(own, other) == {"b": PeerFault.IDENTITY_TAKEN}
