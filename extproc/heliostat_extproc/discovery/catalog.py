"""The catalog: which pool serves the model that a client asks for."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from heliostat_crds.inference_pool import InferencePool


class CatalogError(ValueError):
    """A pool's key or one of its model names is already another pool's."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """Who serves a name: the pool's key, the model's canonical name, the LoRA adapter if any."""

    pool: str
    model: str
    adapter: str | None = None

    @property
    def served_name(self) -> str:
        """The name that the engine must be asked for."""
        return self.model if self.adapter is None else self.adapter


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One entry of the list of models; `parent` is the base model of an adapter."""

    name: str
    root: str
    parent: str | None
    pool: str


@dataclass(frozen=True, slots=True)
class Catalog:
    """Immutable; every name that clients may ask for, in the order of the pools."""

    names: Mapping[str, Resolution]

    @classmethod
    def of(cls, pools: Iterable[InferencePool]) -> Self:
        """Build the catalog; CatalogError names the later pool of a conflict."""
        builder = CatalogBuilder()
        for pool in pools:
            builder.add(pool)
        return cls(MappingProxyType(dict(builder.names)))

    def resolve(self, name: str) -> Resolution | None:
        """Say who serves the name; None where nobody does."""
        return self.names.get(name)

    def models(self) -> tuple[ServedModel, ...]:
        """List every name that clients may ask for."""
        return tuple(
            ServedModel(
                name=name,
                root=resolution.served_name,
                parent=None if resolution.adapter is None else resolution.model,
                pool=resolution.pool,
            )
            for name, resolution in self.names.items()
        )


class CatalogBuilder:
    """Takes pools one by one and refuses those that claim what another has or keeps."""

    def __init__(self) -> None:
        self.names: dict[str, Resolution] = {}
        self._added: set[str] = set()
        self._key_files: dict[str, str] = {}
        self._holders: dict[str, tuple[str, str]] = {}
        """By name of a model: the file and the key of its pool."""

    def keep(self, file: str, before: InferencePool, after: InferencePool) -> None:
        """Reserve for a file's pool what it had before and still claims."""
        self._key_files[after.key] = file
        for name in dict(_names(before)).keys() & dict(_names(after)).keys():
            self._holders[name] = (file, after.key)

    def add(self, pool: InferencePool, file: str = "") -> None:
        """Take the pool, or raise CatalogError and change nothing."""
        if pool.key in self._added or self._key_files.get(pool.key, file) != file:
            raise CatalogError(f'there already is a pool "{pool.key}"')
        names = dict(_names(pool))
        claimant = (file, pool.key)
        for name in names:
            holder = self._holders.get(name, claimant)
            if holder != claimant:
                raise CatalogError(f'model "{name}" is already served by pool "{holder[1]}"')
        self._added.add(pool.key)
        self._holders.update(dict.fromkeys(names, claimant))
        self.names.update(names)


def _names(pool: InferencePool) -> Iterator[tuple[str, Resolution]]:
    model = pool.spec.model
    for name in (model.name, *model.aliases):
        yield name, Resolution(pool.key, model.name)
    for adapter in pool.spec.engine.adapters:
        yield adapter.name, Resolution(pool.key, model.name, adapter.name)
