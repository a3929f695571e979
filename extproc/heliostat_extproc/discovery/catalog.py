"""The catalog: which pool serves the model that a client asks for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self

from heliostat_crds.claims import Settlement


class NotSyncedError(RuntimeError):
    """The pools have not been read yet: nothing can be said of any name."""


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
    """Immutable; every name that clients may ask for: by model, the model's own name first."""

    names: Mapping[str, Resolution] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, settlement: Settlement) -> Self:
        """Lead every settled name to the pool that stands for its model."""
        place = {model: index for index, model in enumerate(settlement.groups)}
        names = {
            name: Resolution(settlement.groups[meaning.model][0], meaning.model, meaning.adapter)
            for name, meaning in settlement.names.items()
        }

        def order(name: str) -> tuple[int, bool, bool, str]:
            found = names[name]
            return place[found.model], found.adapter is not None, name != found.model, name

        return cls(MappingProxyType({name: names[name] for name in sorted(names, key=order)}))

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
