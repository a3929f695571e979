"""From the contents of a folder to the pools in force. Pure: no disk, no clock.

A file is taken whole or not at all: while anything in it is wrong, the pools that were accepted
from it last stay in force. Pools of one model serve it together. Where two pools mean different
things by one name, the pool that has it keeps it, and of two that are new the one in the first file
by name gets it. Only the other pool is refused (its last accepted version stays, where that one
still fits). RegionPeers of the same files are decided by the same rules.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeAlias

from heliostat_crds.claims import claimant_of
from heliostat_crds.inference_pool import KIND, InferencePool, PoolKind
from heliostat_crds.manifest import ManifestFile, PoolManifest, parse_manifests
from heliostat_crds.problem import ManifestProblem
from heliostat_extproc.discovery.folder_claims import ClaimError, FolderClaims
from heliostat_extproc.discovery.folder_peers import AcceptedPeers, FolderPeers, read_peers
from heliostat_extproc.discovery.peering import declared_peer
from heliostat_extproc.discovery.served_pool import Member, snapshot_of
from heliostat_extproc.discovery.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file is there, but its text cannot be had."""

    reason: str


_NO_ENDPOINTS = "spec.endpoints is missing: only a cluster runs or finds engines"

Contents: TypeAlias = Mapping[str, str | Unreadable]
"""The text of each file by its name."""
Accepted: TypeAlias = Mapping[str, tuple[InferencePool, ...]]
"""The pools in force by the file that declares them."""
Parse: TypeAlias = Callable[[str, str], ManifestFile]
_NO_PEERS: AcceptedPeers = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class FolderState:
    """A snapshot, and what the next reading needs to keep the last good version of each file."""

    snapshot: Snapshot
    accepted: Accepted
    peers: AcceptedPeers = field(default_factory=lambda: _NO_PEERS)


def read_folder(
    contents: Contents,
    last_good: Accepted,
    parse: Parse = parse_manifests,
    *,
    last_peers: AcceptedPeers = _NO_PEERS,
    own_region: str | None = None,
) -> FolderState:
    """Decide which pools and peers are in force; files that are not in `contents` are gone."""
    found = {file: _parse_file(file, contents[file], parse) for file in sorted(contents)}
    reading = _Reading()
    for file, manifests in found.items():
        reading.keep(file, manifests, last_good.get(file, ()))
    for file, manifests in found.items():
        reading.take(file, manifests, last_good.get(file, ()))
    return reading.state(read_peers(found, last_peers, own_region))


def _parse_file(file: str, text: str | Unreadable, parse: Parse) -> ManifestFile:
    if isinstance(text, Unreadable):
        return ManifestFile((), (ManifestProblem(file, None, "", text.reason),))
    return parse(file, text)


@dataclass(slots=True)
class _Reading:
    claims: FolderClaims = field(default_factory=FolderClaims)
    accepted: dict[str, tuple[InferencePool, ...]] = field(default_factory=dict)
    problems: list[ManifestProblem] = field(default_factory=list)

    def keep(self, file: str, found: ManifestFile, last: tuple[InferencePool, ...]) -> None:
        """Reserve what the file's pools in force still claim, before newcomers are looked at."""
        declared = last if found.problems else [manifest.pool for manifest in found.pools]
        after = {pool.key: pool for pool in declared}
        for before in last:
            if before.key in after:
                self.claims.keep(file, before, after[before.key])

    def take(self, file: str, found: ManifestFile, last: tuple[InferencePool, ...]) -> None:
        """Put the file's pools in force, or what was before where they cannot be."""
        if found.problems:
            self.problems.extend(found.problems)
            pools = [pool for pool in last if self._fits(file, pool)]
        else:
            pools = list(self._fitting(file, found.pools, last))
        self.accepted[file] = tuple(pools)

    def _fitting(
        self, file: str, manifests: Iterable[PoolManifest], last: tuple[InferencePool, ...]
    ) -> Iterable[InferencePool]:
        previous = {pool.key: pool for pool in last}
        for manifest in manifests:
            pool = manifest.pool
            try:
                self.claims.add(pool, file)
            except ClaimError as error:
                self.problems.append(manifest.problem(str(error)))
                older = previous.get(pool.key)
                if older is not None and self._fits(file, older):
                    yield older
            else:
                yield pool

    def _fits(self, file: str, pool: InferencePool) -> bool:
        try:
            self.claims.add(pool, file)
        except ClaimError:
            return False
        return True

    def state(self, peers: FolderPeers) -> FolderState:
        pools = [pool for file in self.accepted.values() for pool in file]
        self.problems.extend(
            ManifestProblem(file, None, f"{KIND} {pool.key}", _NO_ENDPOINTS)
            for file, accepted in self.accepted.items()
            for pool in accepted
            if pool.pool_kind is not PoolKind.FIXED
        )
        members = (
            Member(claimant_of(pool, place), pool.pool_settings(), pool.endpoint_settings())
            for place, pool in enumerate(pools)
        )
        snapshot = snapshot_of(members, map(str, (*self.problems, *peers.problems)))
        declared = (declared_peer(peer) for found in peers.accepted.values() for peer in found)
        in_order = tuple(sorted(declared, key=lambda it: it.settings.region))
        return FolderState(replace(snapshot, peers=in_order), self.accepted, peers.accepted)
