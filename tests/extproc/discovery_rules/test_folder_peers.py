"""Which peers are in force, decided from a folder's contents alone."""

import pytest

from heliostat_extproc.discovery.folder_state import FolderState, Unreadable, read_folder
from heliostat_extproc.discovery.peering import DeclaredPeer
from heliostat_routing.events import PeerSettings

POOL = (
    "apiVersion: heliostat.dev/v1alpha1\nkind: InferencePool\nmetadata: {name: chat}\n"
    "spec: {model: {name: llama}, endpoints: [{address: 10.0.0.1}]}\n"
)


def peer(name: str, region: str, identity: str = "", port: int = 9443) -> str:
    return (
        f"apiVersion: heliostat.dev/v1alpha1\nkind: RegionPeer\nmetadata: {{name: {name}}}\n"
        f"spec: {{region: {region}, identity: 'spiffe://x/{identity or region}',"
        f" gateway: {{address: '{region}:{port}'}}}}\n"
    )


def read(contents: dict[str, str | Unreadable], before: FolderState | None = None) -> FolderState:
    if before is None:
        return read_folder(contents, {}, own_region="us")
    return read_folder(contents, before.accepted, last_peers=before.peers, own_region="us")


def in_force(state: FolderState) -> list[str]:
    return [declared.address for declared in state.snapshot.peers]


def told(state: FolderState) -> list[str]:
    return list(state.snapshot.problems)


def test_peers_stand_beside_pools() -> None:
    """A file's pools and peers are both in force, the peers in the order of their regions."""
    state = read({"a.yaml": peer("b", "eu") + "---\n" + POOL + "---\n" + peer("a", "asia")})
    assert told(state) == []
    assert [pool.key for pool in state.snapshot.pools] == ["chat"]
    assert state.snapshot.peers == (
        DeclaredPeer(PeerSettings("asia", 0.1), "asia:9443", "spiffe://x/asia"),
        DeclaredPeer(PeerSettings("eu", 0.1), "eu:9443", "spiffe://x/eu"),
    )


def test_the_own_region_is_no_peer() -> None:
    """Such a peer is refused alone; one file may so be given to all regions."""
    state = read({"all.yaml": peer("us", "us") + "---\n" + peer("eu", "eu")})
    assert in_force(state) == ["eu:9443"]
    assert told(state) == ['all.yaml:1: RegionPeer us: spec.region: "us" is this region itself']


def test_of_two_new_peers_of_one_region_the_first_file_wins() -> None:
    """The order is that of the file names, not of the mapping."""
    state = read({"b.yaml": peer("two", "eu", port=2), "a.yaml": peer("one", "eu", port=1)})
    assert in_force(state) == ["eu:1"]
    assert told(state) == ['b.yaml:1: RegionPeer two: spec.region: "eu" is RegionPeer one already']


@pytest.mark.parametrize(
    ("newcomer", "problem"),
    [
        (peer("new", "eu", port=2), 'spec.region: "eu" is RegionPeer old already'),
        (peer("old", "asia", port=2), 'there already is a RegionPeer "old"'),
        (
            peer("new", "asia", "eu", port=2),
            'spec.identity: "spiffe://x/eu" is that of RegionPeer old already',
        ),
    ],
)
def test_whoever_has_a_region_keeps_it(newcomer: str, problem: str) -> None:
    """A newcomer in an earlier file is the problem, until the other is gone."""
    good: dict[str, str | Unreadable] = {"z.yaml": peer("old", "eu", port=1)}
    state = read({**good, "a.yaml": newcomer}, read(good))
    assert in_force(state) == ["eu:1"]
    assert [text.partition(": ")[2].partition(": ")[2] for text in told(state)] == [problem]
    state = read({"a.yaml": newcomer}, state)
    assert told(state) == []
    assert [address[-2:] for address in in_force(state)] == [":2"]


def test_a_second_peer_of_a_name_does_not_weaken_the_first() -> None:
    """What a peer has is decided before anything that is new, whatever else has its name."""
    good: dict[str, str | Unreadable] = {"m.yaml": peer("old", "eu", port=1)}
    newcomers: dict[str, str | Unreadable] = {
        "a.yaml": peer("new", "eu", port=2),
        "z.yaml": peer("old", "asia", port=3),
    }
    assert in_force(read({**good, **newcomers}, read(good))) == ["eu:1"]


def test_an_edit_changes_the_peer_that_is_in_force() -> None:
    """An address, and also a region, is changed by its own file."""
    before = read({"a.yaml": peer("one", "eu", port=1)})
    assert in_force(read({"a.yaml": peer("one", "eu", port=2)}, before)) == ["eu:2"]
    assert in_force(read({"a.yaml": peer("one", "asia", port=2)}, before)) == ["asia:2"]


def test_an_impossible_edit_leaves_the_peer_as_it_was() -> None:
    """Its last version stays, unless a newcomer has taken what it gave up."""
    good: dict[str, str | Unreadable] = {"a.yaml": peer("one", "eu"), "b.yaml": peer("two", "asia")}
    state = read({**good, "b.yaml": peer("two", "eu")}, read(good))
    assert in_force(state) == ["asia:9443", "eu:9443"]
    assert len(told(state)) == 1
    taken = {**good, "b.yaml": peer("two", "eu"), "c.yaml": peer("three", "asia", port=3)}
    assert in_force(read(taken, read(good))) == ["asia:3", "eu:9443"]


@pytest.mark.parametrize("bad", ["{", "", "kind: Pod", Unreadable("cannot be read"), POOL[:60]])
def test_a_file_that_is_wrong_keeps_its_peers(bad: str | Unreadable) -> None:
    """A file is taken whole or not at all, however often it is read."""
    good: dict[str, str | Unreadable] = {"a.yaml": peer("one", "eu")}
    state = read({"a.yaml": bad}, read({"a.yaml": bad}, read(good)))
    assert in_force(state) == ["eu:9443"]
    assert len(told(state)) == 1
    assert in_force(read({}, state)) == []


def test_a_wrong_peer_keeps_the_pools_of_its_file() -> None:
    """What is wrong with a peer holds the whole file back, its pools too."""
    before = read({"a.yaml": POOL})
    state = read({"a.yaml": POOL.replace("0.0.1", "0.0.2") + "---\n" + peer("one", "EU")}, before)
    assert [it.endpoints[0].address for it in state.snapshot.pools] == ["10.0.0.1:8000"]
    assert told(state)[0].startswith("a.yaml:9: spec.gateway.address: ")
