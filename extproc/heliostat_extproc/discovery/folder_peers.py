"""Which RegionPeers of a folder are in force: whoever has a region keeps it, as with pools' names.

Of two that are new the one in the first file by name gets it. A peer that an edit has made
impossible keeps its last accepted version, where that one still fits.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from heliostat_crds.manifest import ManifestFile, PeerManifest
from heliostat_crds.peer_claims import PeerRefusal, peer_claim, refused_peers
from heliostat_crds.problem import ManifestProblem
from heliostat_crds.region_peer import PEER_KIND, RegionPeer

AcceptedPeers: TypeAlias = Mapping[str, tuple[RegionPeer, ...]]
"""The peers in force by the file that declares them."""


@dataclass(frozen=True, slots=True)
class FolderPeers:
    """The peers in force, and what is wrong with the others."""

    accepted: AcceptedPeers
    problems: tuple[ManifestProblem, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A declared peer; `manifest` is None where it is the last good one of a file that is wrong."""

    file: str
    peer: RegionPeer
    manifest: PeerManifest | None
    older: RegionPeer | None

    @property
    def is_held(self) -> bool:
        """Whether it claims what it has."""
        return self.older is not None and _claims(self.older) == _claims(self.peer)

    def problem(self, message: str) -> ManifestProblem:
        if self.manifest is not None:
            return self.manifest.problem(message)
        return ManifestProblem(self.file, None, f"{PEER_KIND} {self.peer.key}", message)


def read_peers(
    found: Mapping[str, ManifestFile], last_good: AcceptedPeers, own_region: str | None
) -> FolderPeers:
    """Decide which peers of all files are in force; what is held goes before what is new."""
    entries = [entry for file in found for entry in _entries(file, found[file], last_good)]
    entries.sort(key=lambda it: not it.is_held)
    named: dict[str, _Entry] = {}
    for entry in entries:
        named.setdefault(entry.peer.key, entry)
    problems = [
        entry.problem(f'there already is a {PEER_KIND} "{entry.peer.key}"')
        for entry in entries
        if named[entry.peer.key] is not entry
    ]
    refused = _refused((it.peer for it in named.values()), own_region)
    problems += [named[key].problem(str(refusal)) for key, refusal in refused.items()]
    kept = [(entry.file, entry.peer) for key, entry in named.items() if key not in refused]
    for key in refused:
        older = named[key].older
        if older is not None and key not in _refused((*(it for _, it in kept), older), own_region):
            kept.append((named[key].file, older))
    accepted: defaultdict[str, list[RegionPeer]] = defaultdict(list)
    for file, peer in kept:
        accepted[file].append(peer)
    return FolderPeers(
        {file: tuple(peers) for file, peers in accepted.items()},
        tuple(sorted(problems, key=lambda it: (it.file, it.line or 0))),
    )


def _entries(file: str, manifests: ManifestFile, last_good: AcceptedPeers) -> Iterator[_Entry]:
    """Give the file's peers: those it holds, or the last good ones while anything is wrong."""
    last = {peer.key: peer for peer in last_good.get(file, ())}
    if manifests.problems:
        yield from (_Entry(file, peer, None, peer) for peer in last.values())
        return
    for manifest in manifests.peers:
        yield _Entry(file, manifest.peer, manifest, last.get(manifest.peer.key))


def _refused(peers: Iterable[RegionPeer], own_region: str | None) -> Mapping[str, PeerRefusal]:
    return refused_peers((peer_claim(it, place) for place, it in enumerate(peers)), own_region)


def _claims(peer: RegionPeer) -> tuple[str, str, str]:
    return peer.key, peer.spec.region, peer.spec.identity
