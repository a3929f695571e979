from random import Random

import pytest

from heliostat_sim.demand.similarity import asks_of
from heliostat_sim.demand.trees import TreeClients, TreeSession, TreeSettings, tree_clients
from heliostat_sim.workload.session import WorkloadError
from heliostat_sim.world.chain import TokenChain
from heliostat_sim.world.demand import Ask, Session


def tree(branches: int = 2, seed: int = 1) -> TreeSession:
    shared = TokenChain()
    shared.add(1, 500)
    return TreeSession(TreeSettings(branches=branches), shared, Random(seed))


def asked_backwards(session: Session) -> list[Ask]:
    waiting, asks = session.start(), []
    while waiting:
        ask = waiting.pop()
        asks.append(ask)
        waiting.extend(session.on_answer(ask))
    return asks


@pytest.mark.parametrize(("branches", "requests"), [(2, 15), (4, 85)])
def test_a_tree_has_all_its_nodes(branches: int, requests: int) -> None:
    """Depth 4 makes 15 requests with two branches and 85 with four."""
    positions = [ask.position for ask in asks_of(tree(branches))]
    assert sorted(positions) == list(range(requests))
    assert TreeSettings(branches=branches).nodes == requests


def test_a_nodes_children_are_asked_at_once() -> None:
    """One answer leads to all children of its node, and to nobody else's."""
    session = tree(branches=4)
    (root,) = session.start()
    children = session.on_answer(root)
    assert [child.position for child in children] == [1, 2, 3, 4]
    assert [child.position for child in session.on_answer(children[2])] == [13, 14, 15, 16]


def test_a_child_holds_its_parents_prompt_and_answer() -> None:
    """A child's prompt is its parent's, the answer and an instruction; siblings part there."""
    session = tree()
    (root,) = session.start()
    one, other = session.on_answer(root)
    inherited = root.prompt_tokens + root.output_tokens
    assert one.prompt_tokens == other.prompt_tokens == inherited + 20
    full = inherited // 16
    assert one.chain.hashes[:full] == root.chain.hashes[:full] == other.chain.hashes[:full]
    assert one.chain.hashes[full] != other.chain.hashes[full]


def test_the_order_of_answers_changes_nothing() -> None:
    """A node's request is the same whichever answers came before."""
    forwards = {ask.position: ask for ask in asks_of(tree())}
    for ask in asked_backwards(tree()):
        same = forwards[ask.position]
        assert (ask.prompt_tokens, ask.output_tokens) == (same.prompt_tokens, same.output_tokens)
        assert ask.chain.hashes == same.chain.hashes


def test_trees_share_their_instructions_only() -> None:
    """All trees of a world begin with the same 500 tokens and go on by themselves."""
    clients = tree_clients(
        {"us": TreeClients(1, TreeSettings()), "eu": TreeClients(1, TreeSettings(branches=4))}, 1
    )
    roots = [next(client.sessions).start()[0] for client in clients]
    assert roots[0].chain.hashes[:31] == roots[1].chain.hashes[:31]
    assert roots[0].chain.hashes[31] != roots[1].chain.hashes[31]
    assert 550 < roots[0].prompt_tokens < 900


def test_each_region_has_trees_of_its_own_shape() -> None:
    """One region's clients may branch more than another's."""
    clients = tree_clients(
        {"us": TreeClients(2, TreeSettings(branches=4)), "eu": TreeClients(1, TreeSettings())}, 1
    )
    sizes = [(c.region, len(list(asks_of(next(c.sessions))))) for c in clients]
    assert sizes == [("us", 85), ("us", 85), ("eu", 15)]


def test_boundless_trees_are_refused() -> None:
    """A tree of more requests than anyone can mean is an error."""
    with pytest.raises(WorkloadError):
        TreeSettings(branches=30, depth=10)
