"""Who serves which name: pools of one model together, and the oldest claim where models clash.

Pools of the same `spec.model.name` form one group. Every other name that two models claim, or that
means an alias in one pool and an adapter in another, belongs to the oldest pool that claims it; the
others lose just that name. Nothing depends on the order in which pools are looked at.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from heliostat_crds.inference_pool import InferencePool


@dataclass(frozen=True, slots=True)
class Claimant:
    """A pool and the names it claims.

    `since` is when the pool was created: an instant in seconds, or its place in a folder. The
    smaller is the older; `key`, which no other pool has, decides between equals.
    """

    key: str
    since: float
    model: str
    aliases: frozenset[str] = frozenset()
    adapters: frozenset[str] = frozenset()


class Meaning(NamedTuple):
    """What a name stands for: a model, or one adapter of it."""

    model: str
    adapter: str | None = None


Group: TypeAlias = tuple[str, ...]
"""The keys of the pools that serve one model, oldest first: the first one's settings count."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A name that a pool claims and does not get, and the pool that has it."""

    pool: str
    name: str
    holder: str

    def __str__(self) -> str:
        """Say it in a sentence for the pool that lost."""
        return f'name "{self.name}" belongs to pool {self.holder}'


@dataclass(frozen=True, slots=True)
class Settlement:
    """Who has what. `groups` by model, oldest group first; `conflicts` by pool key and name."""

    groups: Mapping[str, Group]
    names: Mapping[str, Meaning]
    conflicts: tuple[Conflict, ...]


def claimant_of(pool: InferencePool, since: float) -> Claimant:
    """Give what a pool claims."""
    model = pool.spec.model
    return Claimant(
        key=pool.key,
        since=since,
        model=model.name,
        aliases=frozenset(model.aliases),
        adapters=frozenset(adapter.name for adapter in pool.spec.engine.adapters),
    )


def created_seconds(pool: InferencePool) -> float:
    """Give when the API server created the pool, in seconds since 1970; 0 where it did not."""
    created = pool.metadata.creation_timestamp
    return 0.0 if created is None else created.timestamp()


def settle(claimants: Iterable[Claimant]) -> Settlement:
    """Decide every claim; the claimants' keys must differ."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    holders: dict[str, tuple[Meaning, str]] = {}
    conflicts: list[Conflict] = []
    for claimant in sorted(claimants, key=lambda it: (it.since, it.key)):
        groups[claimant.model].append(claimant.key)
        for name, meaning in meanings_of(claimant).items():
            held, holder = holders.setdefault(name, (meaning, claimant.key))
            if held != meaning:
                conflicts.append(Conflict(claimant.key, name, holder))
    return Settlement(
        groups={model: tuple(keys) for model, keys in groups.items()},
        names={name: meaning for name, (meaning, _) in holders.items()},
        conflicts=tuple(sorted(conflicts, key=lambda it: (it.pool, it.name))),
    )


def meanings_of(claimant: Claimant) -> dict[str, Meaning]:
    """Give each name's meaning; one pool's names mean one thing each, the model's own first."""
    return {
        **{name: Meaning(claimant.model, name) for name in sorted(claimant.adapters)},
        **{name: Meaning(claimant.model) for name in sorted(claimant.aliases)},
        claimant.model: Meaning(claimant.model),
    }
