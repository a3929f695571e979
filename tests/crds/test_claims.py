from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat_crds.claims import (
    Claimant,
    Conflict,
    Meaning,
    Settlement,
    claimant_of,
    created_seconds,
    settle,
)
from heliostat_crds.inference_pool import InferencePool

NAMES = st.sampled_from("abcdef")
CLAIMANTS = st.lists(
    st.builds(
        Claimant,
        key=st.sampled_from([f"ns/{letter}" for letter in "pqrstuvw"]),
        since=st.sampled_from([0.0, 1.0, 2.0]),
        model=NAMES,
        aliases=st.frozensets(NAMES, max_size=3),
        adapters=st.frozensets(NAMES, max_size=3),
    ),
    max_size=8,
    unique_by=lambda claimant: claimant.key,
)


def claimed(claimant: Claimant) -> set[str]:
    return {claimant.model, *claimant.aliases, *claimant.adapters}


def lost(settlement: Settlement, claimant: Claimant) -> set[str]:
    return {it.name for it in settlement.conflicts if it.pool == claimant.key}


def test_pools_of_one_model_are_one_group_led_by_the_oldest() -> None:
    """Two pools of one model conflict in nothing, and share every name that means the same."""
    newer = Claimant("ns/a", 2.0, "llama", aliases=frozenset({"chat"}), adapters=frozenset({"sql"}))
    older = Claimant("ns/b", 1.0, "llama", aliases=frozenset({"chat"}), adapters=frozenset({"sql"}))
    settlement = settle([newer, older])
    assert settlement.groups == {"llama": ("ns/b", "ns/a")}
    assert settlement.names == {
        "llama": Meaning("llama"),
        "chat": Meaning("llama"),
        "sql": Meaning("llama", "sql"),
    }
    assert settlement.conflicts == ()


def test_the_oldest_keeps_a_name_and_the_other_loses_just_that() -> None:
    """A newer pool that claims another model's alias still serves under its other names."""
    older = Claimant("ns/z", 1.0, "llama", aliases=frozenset({"chat"}))
    newer = Claimant("ns/a", 2.0, "qwen", aliases=frozenset({"chat", "small"}))
    settlement = settle([newer, older])
    assert settlement.names["chat"] == Meaning("llama")
    assert settlement.names["small"] == settlement.names["qwen"] == Meaning("qwen")
    assert settlement.conflicts == (Conflict("ns/a", "chat", "ns/z"),)
    assert str(settlement.conflicts[0]) == 'name "chat" belongs to pool ns/z'


def test_a_model_does_not_take_an_older_pools_alias() -> None:
    """The name of a newer pool's model stays what it has meant: its clients are not hijacked."""
    older = Claimant("ns/a", 1.0, "llama", aliases=frozenset({"qwen"}))
    newer = Claimant("ns/b", 2.0, "qwen", aliases=frozenset({"small"}))
    settlement = settle([older, newer])
    assert settlement.names["qwen"] == Meaning("llama")
    assert settlement.groups == {"llama": ("ns/a",), "qwen": ("ns/b",)}
    assert settlement.conflicts == (Conflict("ns/b", "qwen", "ns/a"),)


def test_a_name_is_either_an_alias_or_an_adapter() -> None:
    """Pools of one model that disagree about what a name is conflict too."""
    older = Claimant("ns/a", 1.0, "llama", aliases=frozenset({"sql"}))
    newer = Claimant("ns/b", 2.0, "llama", adapters=frozenset({"sql"}))
    settlement = settle([older, newer])
    assert settlement.names["sql"] == Meaning("llama")
    assert settlement.conflicts == (Conflict("ns/b", "sql", "ns/a"),)


def test_the_key_decides_between_pools_of_one_age() -> None:
    """An API server's instants have whole seconds: two pools may be equally old."""
    settlement = settle(
        [
            Claimant("ns/b", 1.0, "qwen", aliases=frozenset({"chat"})),
            Claimant("ns/a", 1.0, "llama", aliases=frozenset({"chat"})),
        ]
    )
    assert settlement.names["chat"] == Meaning("llama")


@given(CLAIMANTS, st.randoms(use_true_random=False))
def test_the_order_of_the_pools_changes_nothing(
    claimants: Sequence[Claimant], random: Random
) -> None:
    """Any order of the same pools gives the same settlement, down to the order of its parts."""
    shuffled = list(claimants)
    random.shuffle(shuffled)
    one, other = settle(claimants), settle(shuffled)
    assert one == other
    assert list(one.groups) == list(other.groups)


@given(CLAIMANTS)
def test_every_claim_is_either_granted_or_told(claimants: Sequence[Claimant]) -> None:
    """A pool has each name it claims or a conflict that names a holder with another meaning."""
    settlement = settle(claimants)
    by_key = {claimant.key: claimant for claimant in claimants}
    assert set(settlement.names) == {name for it in claimants for name in claimed(it)}
    for claimant in claimants:
        granted = claimed(claimant) - lost(settlement, claimant)
        assert {settlement.names[name].model for name in granted} <= {claimant.model}
    for conflict in settlement.conflicts:
        loser, holder = by_key[conflict.pool], by_key[conflict.holder]
        assert conflict.name in claimed(loser) & claimed(holder)
        assert (holder.since, holder.key) < (loser.since, loser.key)


@given(CLAIMANTS)
def test_groups_hold_every_pool_once_oldest_first(claimants: Sequence[Claimant]) -> None:
    """Each pool is in the group of its model, behind the older ones."""
    groups = settle(claimants).groups
    by_key = {claimant.key: claimant for claimant in claimants}
    assert sorted(key for keys in groups.values() for key in keys) == sorted(by_key)
    for model, keys in groups.items():
        ages = [(by_key[key].since, key) for key in keys]
        assert ages == sorted(ages)
        assert {by_key[key].model for key in keys} == {model}


@given(CLAIMANTS)
def test_a_newcomer_takes_nothing(claimants: Sequence[Claimant]) -> None:
    """A pool younger than all others changes the meaning of no name."""
    newcomer = Claimant("ns/zz", 9.0, "a", frozenset("bcd"), frozenset("ef"))
    before, after = settle(claimants).names, settle([*claimants, newcomer]).names
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize(
    ("metadata", "seconds"),
    [({"creationTimestamp": "1970-01-01T00:01:00Z"}, 60.0), ({}, 0.0)],
)
def test_what_a_pool_claims_is_read_from_its_spec(metadata: dict[str, str], seconds: float) -> None:
    """Model, aliases and adapters are claimed; the API server's instant is the pool's age."""
    pool = InferencePool.from_object(
        {
            "apiVersion": "heliostat.dev/v1alpha1",
            "kind": "InferencePool",
            "metadata": {"name": "chat", "namespace": "ns", **metadata},
            "spec": {
                "model": {"name": "llama", "aliases": ["chat"]},
                "engine": {"adapters": [{"name": "sql"}]},
            },
        }
    )
    assert created_seconds(pool) == seconds
    assert claimant_of(pool, seconds) == Claimant(
        "ns/chat", seconds, "llama", frozenset({"chat"}), frozenset({"sql"})
    )
