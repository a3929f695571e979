"""Which RegionPeers are in force: one for each region and identity, none for the own region.

Of two that are the same region, or prove it alike, the older one is in force. So a state or a
request that comes in belongs to one region, and nothing depends on the order of looking at them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from heliostat_crds.region_peer import RegionPeer


class PeerFault(StrEnum):
    """Why a RegionPeer is not in force."""

    OWN_REGION = "own-region"
    REGION_TAKEN = "region-taken"
    IDENTITY_TAKEN = "identity-taken"


@dataclass(frozen=True, slots=True)
class PeerClaim:
    """A RegionPeer and what it stands for.

    `since` is when it was created: an instant in seconds, or its place in a folder. The smaller is
    the older; `key`, which no other peer has, decides between equals.
    """

    key: str
    since: float
    region: str
    identity: str


@dataclass(frozen=True, slots=True)
class PeerRefusal:
    """Why a RegionPeer is passed over, and for which other one; its text is about the spec."""

    fault: PeerFault
    claim: PeerClaim
    holder: str = ""

    def __str__(self) -> str:
        """Say it in a sentence."""
        if self.fault is PeerFault.OWN_REGION:
            return f'spec.region: "{self.claim.region}" is this region itself'
        if self.fault is PeerFault.REGION_TAKEN:
            return f'spec.region: "{self.claim.region}" is RegionPeer {self.holder} already'
        return f'spec.identity: "{self.claim.identity}" is that of RegionPeer {self.holder} already'


def peer_claim(peer: RegionPeer, since: float) -> PeerClaim:
    """Give what a peer claims."""
    return PeerClaim(peer.key, since, peer.spec.region, peer.spec.identity)


def peer_created_seconds(peer: RegionPeer) -> float:
    """Give when the API server created the peer, in seconds since 1970; 0 where it did not."""
    created = peer.metadata.creation_timestamp
    return 0.0 if created is None else created.timestamp()


def refused_peers(claims: Iterable[PeerClaim], own_region: str | None) -> Mapping[str, PeerRefusal]:
    """Decide which peers are not in force, by key; no `own_region` where it is not known."""
    regions: dict[str, str] = {}
    identities: dict[str, str] = {}
    refused: dict[str, PeerRefusal] = {}
    for claim in sorted(claims, key=lambda it: (it.since, it.key)):
        if claim.region == own_region:
            refused[claim.key] = PeerRefusal(PeerFault.OWN_REGION, claim)
        elif claim.region in regions:
            holder = regions[claim.region]
            refused[claim.key] = PeerRefusal(PeerFault.REGION_TAKEN, claim, holder)
        elif claim.identity in identities:
            holder = identities[claim.identity]
            refused[claim.key] = PeerRefusal(PeerFault.IDENTITY_TAKEN, claim, holder)
        else:
            regions[claim.region] = identities[claim.identity] = claim.key
    return refused
