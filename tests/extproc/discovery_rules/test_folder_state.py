"""Which pools are in force, decided from contents alone."""

from collections.abc import Mapping

import pytest

from heliostat_extproc.discovery.folder_state import (
    Accepted,
    FolderState,
    Unreadable,
    read_folder,
)


def manifest(
    name: str, model: str, port: int = 8000, namespace: str | None = None, alias: str = ""
) -> str:
    space = f", namespace: {namespace}" if namespace else ""
    return (
        "apiVersion: heliostat.dev/v1alpha1\nkind: InferencePool\n"
        f"metadata: {{name: {name}{space}}}\n"
        f"spec: {{model: {{name: {model}, aliases: [{alias}]}}, engine: {{port: {port}}},"
        " endpoints: [{address: 10.0.0.1}]}\n"
    )


def read(
    contents: Mapping[str, str | Unreadable], last_good: Accepted | None = None
) -> FolderState:
    return read_folder(contents, last_good or {})


def in_force(state: FolderState) -> list[tuple[str, int]]:
    return [(pool.key, pool.spec.engine.port) for it in state.accepted.values() for pool in it]


def told(state: FolderState) -> list[str]:
    return [str(problem) for problem in state.snapshot.problems]


def test_of_two_pools_of_one_name_the_first_file_wins() -> None:
    """The order is that of the file names, not of the mapping."""
    state = read({"b.yaml": manifest("chat", "b", 2), "a.yaml": manifest("chat", "a", 1)})
    assert in_force(state) == [("chat", 1)]
    assert told(state) == ['b.yaml:1: InferencePool chat: there already is a pool "chat"']


def test_a_pool_name_may_stand_once_in_each_namespace() -> None:
    """Names are taken within a namespace only."""
    contents = {"a.yaml": manifest("chat", "a", namespace="x") + "---\n" + manifest("chat", "b")}
    assert in_force(read(contents)) == [("x/chat", 8000), ("chat", 8000)]


def test_a_name_means_one_model() -> None:
    """The later pool that means another model by it is refused alone; its file's others go in."""
    contents = {
        "a.yaml": manifest("one", "llama"),
        "b.yaml": manifest("two", "opt", alias="llama") + "---\n" + manifest("three", "qwen"),
    }
    state = read(contents)
    assert in_force(state) == [("one", 8000), ("three", 8000)]
    assert told(state) == [
        'b.yaml:1: InferencePool two: name "llama" is already served by pool "one"'
    ]


def test_pools_of_one_model_are_served_as_one() -> None:
    """Their endpoints are put together under the first file's pool."""
    state = read({"b.yaml": manifest("two", "llama", 2), "a.yaml": manifest("one", "llama", 1)})
    assert told(state) == []
    [pool] = state.snapshot.pools
    assert pool.key == "one"
    assert [endpoint.address for endpoint in pool.endpoints] == ["10.0.0.1:1", "10.0.0.1:2"]


def test_a_pool_that_only_a_cluster_can_serve_is_told() -> None:
    """Nobody starts engines or looks for pods here: only addresses serve."""
    managed = manifest("one", "llama").replace("endpoints: [{address: 10.0.0.1}]", "replicas: 2")
    state = read({"a.yaml": managed})
    assert [pool.endpoints for pool in state.snapshot.pools] == [()]
    assert told(state) == [
        "a.yaml: InferencePool one: spec.endpoints is missing: only a cluster runs or finds engines"
    ]


def test_a_refused_pool_keeps_its_last_version_where_that_fits() -> None:
    """An edit that claims another pool's model leaves the pool as it was."""
    good = {"a.yaml": manifest("one", "llama"), "b.yaml": manifest("two", "qwen", 1)}
    before = read(good)
    state = read(good | {"b.yaml": manifest("two", "qwen", 2, alias="llama")}, before.accepted)
    assert in_force(state) == [("one", 8000), ("two", 1)]
    assert len(told(state)) == 1


@pytest.mark.parametrize(
    "newcomer", [manifest("chat", "other", 2), manifest("typo", "opt", 2, alias="llama")]
)
def test_a_pool_in_force_is_not_taken_away_by_an_earlier_file(newcomer: str) -> None:
    """Whoever has the name of a pool or a model keeps it; the newcomer is the problem."""
    good = {"z.yaml": manifest("chat", "llama", 1)}
    state = read(good | {"a.yaml": newcomer}, read(good).accepted)
    assert in_force(state) == [("chat", 1)]
    assert told(state)[0].startswith("a.yaml:1: ")
    state = read({"a.yaml": newcomer}, state.accepted)
    assert [port for _, port in in_force(state)] == [2]


def test_a_changed_pool_keeps_the_names_that_it_had_before() -> None:
    """An edit of the holder, or of an older pool that wants its name, changes nothing of that."""
    good = {"a.yaml": manifest("one", "qwen", 1), "z.yaml": manifest("two", "llama", 1)}
    edited = {
        "a.yaml": manifest("one", "opt", 2, alias="llama"),
        "z.yaml": manifest("two", "llama", 2),
    }
    state = read(edited, read(good).accepted)
    assert in_force(state) == [("one", 1), ("two", 2)]


def test_pools_may_swap_their_names_at_once() -> None:
    """What both give up is free for the other."""
    good = {"a.yaml": manifest("one", "qwen", 1), "b.yaml": manifest("two", "llama", 1)}
    swapped = {"a.yaml": manifest("one", "llama", 2), "b.yaml": manifest("two", "qwen", 2)}
    state = read(swapped, read(good).accepted)
    assert in_force(state) == [("one", 2), ("two", 2)]


def test_a_file_is_taken_whole_or_not_at_all() -> None:
    """One wrong document keeps the whole file at its last good version."""
    before = read({"a.yaml": manifest("one", "llama", 1)})
    contents = {"a.yaml": manifest("one", "llama", 2) + "---\n" + manifest("Two", "qwen")}
    state = read(contents, before.accepted)
    assert in_force(state) == [("one", 1)]
    assert told(state)[0].startswith("a.yaml:8: metadata.name: ")
    assert in_force(read(contents)) == []


def test_the_last_good_version_outlives_many_bad_ones() -> None:
    """However often a file is read while it is wrong, its pools stay."""
    state = read({"a.yaml": manifest("one", "llama")})
    for text in ("{", "", Unreadable("cannot be read"), "kind: Pod"):
        state = read({"a.yaml": text}, state.accepted)
        assert in_force(state) == [("one", 8000)]
        assert len(told(state)) == 1


def test_a_file_that_is_gone_takes_its_pools_with_it() -> None:
    """Only files that are there keep a last good version, also when they come back bad."""
    before = read({"a.yaml": manifest("one", "llama")})
    gone = read({}, before.accepted)
    assert in_force(gone) == []
    assert in_force(read({"a.yaml": "{"}, gone.accepted)) == []


def test_a_pool_may_move_to_another_file() -> None:
    """The same pool in another file, the old one gone, is no conflict."""
    before = read({"b.yaml": manifest("one", "llama", 1)})
    state = read({"a.yaml": manifest("one", "llama", 2)}, before.accepted)
    assert in_force(state) == [("one", 2)]
    assert told(state) == []


def test_a_refused_pool_is_served_once_the_other_is_gone() -> None:
    """Conflicts are decided anew at each reading."""
    contents = {"a.yaml": manifest("one", "llama"), "b.yaml": manifest("two", "llama")}
    state = read(contents)
    del contents["a.yaml"]
    assert in_force(read(contents, state.accepted)) == [("two", 8000)]
