"""From the contents of a folder to the pools in force. Pure: no disk, no clock.

A file is taken whole or not at all: while anything in it is wrong, the pools that were accepted
from it last stay in force. Between files the first by name wins; of a file whose pool claims what
an earlier file's pool has, only that pool is refused (its last accepted version stays, where that
one still fits).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from heliostat_crds.inference_pool import InferencePool
from heliostat_crds.manifest import ManifestFile, PoolManifest, parse_manifests
from heliostat_crds.problem import ManifestProblem
from heliostat_extproc.discovery.catalog import CatalogBuilder, CatalogError
from heliostat_extproc.discovery.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file is there, but its text cannot be had."""

    reason: str


Contents: TypeAlias = Mapping[str, str | Unreadable]
"""The text of each file by its name."""
Accepted: TypeAlias = Mapping[str, tuple[InferencePool, ...]]
"""The pools in force by the file that declares them."""
Parse: TypeAlias = Callable[[str, str], ManifestFile]


@dataclass(frozen=True, slots=True)
class FolderState:
    """A snapshot, and what the next reading needs to keep the last good version of each file."""

    snapshot: Snapshot
    accepted: Accepted


def read_folder(
    contents: Contents, last_good: Accepted, parse: Parse = parse_manifests
) -> FolderState:
    """Decide which pools are in force; files that are not in `contents` are gone."""
    reading = _Reading()
    for file in sorted(contents):
        reading.take(file, contents[file], last_good.get(file, ()), parse)
    return reading.state()


@dataclass(slots=True)
class _Reading:
    catalog: CatalogBuilder = field(default_factory=CatalogBuilder)
    accepted: dict[str, tuple[InferencePool, ...]] = field(default_factory=dict)
    problems: list[ManifestProblem] = field(default_factory=list)

    def take(
        self, file: str, text: str | Unreadable, last: tuple[InferencePool, ...], parse: Parse
    ) -> None:
        if isinstance(text, Unreadable):
            found = ManifestFile((), (ManifestProblem(file, None, "", text.reason),))
        else:
            found = parse(file, text)
        if found.problems:
            self.problems.extend(found.problems)
            pools = [pool for pool in last if self._fits(pool)]
        else:
            pools = list(self._fitting(found.pools, last))
        self.accepted[file] = tuple(pools)

    def _fitting(
        self, manifests: Iterable[PoolManifest], last: tuple[InferencePool, ...]
    ) -> Iterable[InferencePool]:
        previous = {pool.key: pool for pool in last}
        for manifest in manifests:
            pool = manifest.pool
            try:
                self.catalog.add(pool)
            except CatalogError as error:
                self.problems.append(manifest.problem(str(error)))
                older = previous.get(pool.key)
                if older is not None and self._fits(older):
                    yield older
            else:
                yield pool

    def _fits(self, pool: InferencePool) -> bool:
        try:
            self.catalog.add(pool)
        except CatalogError:
            return False
        return True

    def state(self) -> FolderState:
        pools = tuple(pool for file in self.accepted.values() for pool in file)
        return FolderState(Snapshot(pools, tuple(self.problems)), self.accepted)
