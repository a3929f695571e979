"""Manifests: the text of a file in, checked resources or exact problems out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from heliostat_crds.inference_pool import API_VERSION, KIND, InferencePool
from heliostat_crds.metadata import without_server_fields
from heliostat_crds.problem import ManifestProblem
from heliostat_crds.region_peer import PEER_KIND, RegionPeer
from heliostat_crds.validation import field_path, problems_of, shown
from heliostat_crds.yaml_document import YamlDocument, YamlError, read_yaml

LIST_KIND = "List"
MAX_FILE_BYTES = 4 * 1024 * 1024
"""Size of the largest manifest file that is read."""

MAX_PROBLEMS = 20
"""Problems told of one file; the others are counted."""

_MODELS: dict[str, type[BaseModel]] = {KIND: InferencePool, PEER_KIND: RegionPeer}
_SUPPORTED = ", ".join((*_MODELS, LIST_KIND))


@dataclass(frozen=True, slots=True)
class PoolManifest:
    """A pool and where it was declared; `line` counts from 1."""

    pool: InferencePool
    file: str
    line: int

    def problem(self, message: str) -> ManifestProblem:
        """Say what is wrong with the pool as a whole."""
        return ManifestProblem(self.file, self.line, f"{KIND} {self.pool.key}", message)


@dataclass(frozen=True, slots=True)
class PeerManifest:
    """A peer and where it was declared; `line` counts from 1."""

    peer: RegionPeer
    file: str
    line: int

    def problem(self, message: str) -> ManifestProblem:
        """Say what is wrong with the peer as a whole."""
        return ManifestProblem(self.file, self.line, f"{PEER_KIND} {self.peer.key}", message)


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """What one file holds: every resource that is right, every problem there is."""

    pools: tuple[PoolManifest, ...]
    problems: tuple[ManifestProblem, ...]
    peers: tuple[PeerManifest, ...] = ()


def parse_manifests(file: str, text: str) -> ManifestFile:
    """Read a YAML file of one or more documents; never raises for what the file holds."""
    try:
        documents = read_yaml(text)
    except YamlError as error:
        return ManifestFile((), (ManifestProblem(file, error.line, "", error.message),))
    pools: list[PoolManifest] = []
    peers: list[PeerManifest] = []
    problems: list[ManifestProblem] = []
    for document in documents:
        for path, data in _resources(document.data):
            found = _parse_resource(file, document, path, data)
            if isinstance(found, PoolManifest):
                pools.append(found)
            elif isinstance(found, PeerManifest):
                peers.append(found)
            else:
                problems.extend(found)
    if not pools and not peers and not problems:
        message = "the file holds no resource; delete it to remove its pools"
        problems.append(ManifestProblem(file, None, "", message))
    more = len(problems) - MAX_PROBLEMS
    if more > 0:
        problems[MAX_PROBLEMS:] = [ManifestProblem(file, None, "", f"{more} more problems")]
    return ManifestFile(tuple(pools), tuple(problems), tuple(peers))


def _resources(data: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Give each resource of a document and its path: the items of a List, else the whole."""
    if data is None:
        return
    if isinstance(data, dict) and data.get("kind") == LIST_KIND and data.get("apiVersion") == "v1":
        items = data.get("items")
        if isinstance(items, list):
            yield from ((("items", index), item) for index, item in enumerate(items))
            return
    yield (), data


def _parse_resource(
    file: str, document: YamlDocument, path: Sequence[str | int], data: Any
) -> PoolManifest | PeerManifest | list[ManifestProblem]:
    misfit = _type_problem(data)
    if misfit is not None:
        at, message = misfit
        where = (*path, *at)
        return [ManifestProblem(file, document.line_of(where), field_path(where), message)]
    line, given = document.line_of(path), without_server_fields(data)
    try:
        if data["kind"] == PEER_KIND:
            return PeerManifest(RegionPeer.model_validate(given), file, line)
        return PoolManifest(InferencePool.model_validate(given), file, line)
    except ValidationError as error:
        return problems_of(error, _MODELS[data["kind"]], file, document, path)


def _type_problem(data: Any) -> tuple[tuple[str, ...], str] | None:
    """Say why this is no resource that we read, and at which field; None where it is one."""
    if not isinstance(data, dict):
        return (
            (),
            f"not a resource; expected a mapping with apiVersion: {API_VERSION}, kind: {KIND}",
        )
    kind, version = data.get("kind"), data.get("apiVersion")
    if kind == LIST_KIND and version == "v1":
        return ("items",), "a List needs a list of items"
    if kind is None:
        return (), f"kind is missing; supported: {_SUPPORTED}"
    if not isinstance(kind, str) or kind not in _MODELS:
        return ("kind",), f"kind {shown(kind)} is not supported; supported: {_SUPPORTED}"
    if version is None:
        return (), f"apiVersion is missing; allowed: {API_VERSION}"
    if version != API_VERSION:
        return ("apiVersion",), f"{shown(version)} is not supported; allowed: {API_VERSION}"
    return None
