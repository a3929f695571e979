import statistics
from dataclasses import replace
from itertools import islice, pairwise
from random import Random

import pytest

from heliostat_sim.demand.chat import ARENA, WILDCHAT, Chats, ChatSettings, chat_clients
from heliostat_sim.demand.similarity import asks_of
from heliostat_sim.world.demand import Ask, ClosedClient


def first_asks(client: ClosedClient, count: int) -> list[tuple[object, ...]]:
    asks = (ask for session in client.sessions for ask in asks_of(session))
    return [
        (ask.prompt_tokens, ask.output_tokens, ask.think_seconds, ask.chain.keys(10**6, 1)[:5])
        for ask in islice(asks, count)
    ]


def one_chat(settings: ChatSettings, turns: int) -> list[Ask]:
    (client,) = chat_clients({"us": 1}, settings, "test", 1)
    chats = (list(asks_of(session)) for session in client.sessions)
    return next(asks for asks in chats if len(asks) >= turns)


def test_a_client_asks_the_same_whatever_others_do() -> None:
    """What a client asks depends on the seed and its own place, not on other clients' progress."""
    one = chat_clients({"us": 2, "eu": 1}, ARENA, "arena", 3)
    other = chat_clients({"us": 2, "eu": 1}, ARENA, "arena", 3)
    first_asks(other[0], 50)
    assert first_asks(one[2], 20) == first_asks(other[2], 20)
    again = chat_clients({"us": 2, "eu": 1}, ARENA, "arena", 4)
    assert first_asks(again[2], 20) != first_asks(one[2], 20)


def test_a_prompt_holds_all_earlier_messages_and_answers() -> None:
    """Each turn's prompt is the one before it, its answer and a new message, in one chain."""
    asks = one_chat(ARENA, 3)
    assert len({id(ask.chain) for ask in asks}) == 1
    for earlier, later in pairwise(asks):
        assert later.prompt_tokens > earlier.prompt_tokens + earlier.output_tokens


def test_recorded_answers_are_not_what_the_engine_wrote() -> None:
    """With recorded answers a later prompt shares the earlier prompt only, not its answer."""
    first, second, *_ = one_chat(replace(ARENA, recorded_answers=True), 2)
    shared = first.prompt_tokens // 16
    assert second.chain.hashes[:shared] == first.chain.hashes[:shared]
    assert second.chain.hashes[shared + 1] != first.chain.hashes[shared + 1]


def test_answers_are_cut() -> None:
    """No answer is longer than the limit on output."""
    for settings in (ARENA, WILDCHAT):
        (client,) = chat_clients({"us": 1}, settings, "test", 1)
        asks = [ask for chat in islice(client.sessions, 100) for ask in asks_of(chat)]
        assert max(ask.output_tokens for ask in asks) == 512
        assert all(ask.max_output_tokens == 512 for ask in asks)


def test_wildchat_lengths_are_those_published() -> None:
    """User messages are 296 tokens in the mean, heads counted in, and answers 441 before the cut;
    chats have two turns or more.
    """
    rng = Random(1)
    shape = WILDCHAT.shape
    plain = statistics.mean(shape.user_tokens.draw_tokens(rng) for _ in range(40_000))
    (client,) = chat_clients({"us": 1}, WILDCHAT, "test", 1)
    turns = [len(list(asks_of(chat))) for chat in islice(client.sessions, 1000)]
    heads = WILDCHAT.heads.mean_tokens / statistics.mean(turns)
    assert plain + heads == pytest.approx(296, rel=0.05)
    answers = statistics.mean(shape.output_tokens.draw_tokens(rng) for _ in range(40_000))
    assert answers == pytest.approx(441, rel=0.03)
    assert statistics.mean(shape.draw_turns(rng) for _ in range(40_000)) == pytest.approx(
        4.76, rel=0.03
    )
    drawn = [shape.draw_turns(rng) for _ in range(1000)]
    assert min(drawn) == 2


def test_think_time_is_before_every_message_of_a_client() -> None:
    """Clients think before each message at the mean asked for, and without one not at all."""
    shape = replace(ARENA.shape, think_seconds=5.0)
    (client,) = chat_clients({"us": 1}, replace(ARENA, shape=shape), "test", 1)
    asks = [ask for chat in islice(client.sessions, 800) for ask in asks_of(chat)]
    assert statistics.mean(ask.think_seconds for ask in asks) == pytest.approx(5, rel=0.1)
    (client,) = chat_clients({"us": 1}, ARENA, "test", 1)
    assert all(ask.think_seconds == 0 for ask in asks_of(next(client.sessions)))


def test_chats_that_arrive_do_not_think_first() -> None:
    """The first message of a chat that arrives by itself is sent at once."""
    shape = replace(ARENA.shape, think_seconds=5.0)
    chats = Chats(replace(ARENA, shape=shape), "test", 16)
    first, second, *_ = asks_of(chats.draw(Random(1), "us"))
    assert first.think_seconds == 0 < second.think_seconds


def test_clients_begin_within_the_ramp() -> None:
    """Clients begin at times of their own within the ramp."""
    starts = [c.starts_at for c in chat_clients({"us": 50}, ARENA, "x", 1, ramp_seconds=10)]
    assert len(set(starts)) == 50
    assert 0 <= min(starts) < 2
    assert 8 < max(starts) <= 10


def test_some_users_ask_more_than_others() -> None:
    """Users are drawn by Zipf's law, so that sticky policies have heavy users to bear."""
    chats = Chats(ARENA, "test", 16)
    rng = Random(1)
    users = [chats.draw_user(rng, "us") for _ in range(5000)]
    counts = sorted((users.count(user) for user in set(users)), reverse=True)
    assert len(counts) == ARENA.shape.users
    assert counts[0] > 3 * counts[-1]
