"""What of a prompt's bytes is hashed: media by content, token ids as tokens, nothing that moves."""

import base64
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat_extproc.apis import APIS
from heliostat_extproc.prompt_text import (
    FEWEST_MEDIA_BYTES,
    MEDIA_BYTES,
    MOST_MEDIA_BYTES,
    MOST_TOKEN_LISTS,
    prompt_text,
)
from heliostat_extproc.request_body import parse_request_body
from heliostat_routing.settings import BLOCK_BYTES

TEXT = "A picture is worth a thousand words, give or take. " * 40


def media(seed: int, size: int = 60_000) -> str:
    return base64.b64encode(random.Random(seed).randbytes(size)).decode()


def image(seed: int, size: int = 60_000) -> dict[str, object]:
    url = f"data:image/png;base64,{media(seed, size)}"
    return {"type": "image_url", "image_url": {"url": url}}


def keys(path: str = "/v1/chat/completions", **fields: object) -> tuple[int, ...]:
    body = json.dumps({"model": "m", **fields}).encode()
    return parse_request_body(body, APIS[path]).digest("m", None).block_keys


def user(*parts: object) -> dict[str, object]:
    return {"role": "user", "content": list(parts)}


def text(content: str) -> dict[str, object]:
    return {"type": "text", "text": content}


def test_the_same_image_in_the_same_place_is_the_same_prefix_and_another_is_not() -> None:
    """What comes before an image is shared with any, what comes after it with the same alone."""
    one = keys(messages=[user(text(TEXT), image(1), text("What is it?"))])
    again = keys(messages=[user(text(TEXT), image(1), text("Who has drawn it?"))])
    other = keys(messages=[user(text(TEXT), image(2), text("What is it?"))])
    before = len(TEXT) // BLOCK_BYTES
    assert one[:-1] == again[: len(one) - 1]
    assert one[:before] == other[:before]
    assert not set(one[before + 1 :]) & set(other)


@pytest.mark.parametrize(
    "part",
    [
        image(1, 1_000_000),
        {"type": "input_audio", "input_audio": {"data": media(1, 1_000_000), "format": "wav"}},
        {"type": "image", "source": {"type": "base64", "data": media(1, 1_000_000)}},
        {"type": "input_image", "image_url": f"data:image/png;base64,{media(1, 1_000_000)}"},
    ],
)
def test_media_count_as_what_an_engine_makes_of_them(part: dict[str, object]) -> None:
    """However a megabyte is sent, a few thousand tokens stand for it."""
    size = len(prompt_text(memoryview(json.dumps([user(part)]).encode())))
    assert FEWEST_MEDIA_BYTES < size < MOST_MEDIA_BYTES + 300


parts = st.one_of(
    st.text(max_size=3000).map(text),
    st.integers(MEDIA_BYTES - 2000, 3 * MEDIA_BYTES).map(lambda size: image(size, size)),
    st.integers(1, 3 * MEDIA_BYTES).map(lambda size: text("x" * size)),
    st.integers(1, 3 * MEDIA_BYTES).map(lambda size: text("x" * size + " y")),
)
turns = st.lists(st.lists(parts, max_size=3).map(lambda some: user(*some)), max_size=3)


@given(turns, turns, st.sampled_from([None, 2]))
def test_a_longer_conversation_with_images_keeps_the_bytes_of_its_earlier_turn(
    turn: list[object], more: list[object], indent: int | None
) -> None:
    """Whatever is long or short, text or not, in whichever place."""
    before = prompt_text(memoryview(json.dumps(turn, indent=indent).encode()))
    after = prompt_text(memoryview(json.dumps(turn + more, indent=indent).encode()))
    assert bytes(after[: len(before)]) == bytes(before)


@given(st.lists(parts, max_size=4))
def test_no_media_hide_between_samples(some: list[object]) -> None:
    """Every long string that is no text is found."""
    condensed = bytes(prompt_text(memoryview(json.dumps([user(*some)]).encode())))
    strings = condensed.split(b'"')
    assert not [s for s in strings if len(s) >= MEDIA_BYTES and b" " not in s]


@given(st.lists(st.integers(0, 2**32 - 1)), st.lists(st.integers(0, 200_000)))
def test_a_longer_list_of_token_ids_keeps_the_tokens_before_it(
    ids: list[int], more: list[int]
) -> None:
    """Ids are hashed as numbers: neither spaces nor where a block ends in a numeral count."""
    before = keys("/v1/completions", prompt=ids)
    after = json.dumps({"model": "m", "prompt": ids + more}, separators=(",", ":")).encode()
    body = parse_request_body(after, APIS["/v1/completions"]).digest("m", None)
    if ids:
        assert body.block_keys[: len(before)] == before
        assert body.prompt_bytes == 4 * len(ids + more)
        assert keys("/v1/completions", prompt=[ids]) == before


MANY_LISTS = [[1]] * (MOST_TOKEN_LISTS + 1)


@pytest.mark.parametrize(
    "prompt", [MANY_LISTS, [-1, 2], [2**40], [1.5, 2], ["a", "b"], [[1], ["a"]], [1, "a"]]
)
def test_a_list_that_is_no_list_of_token_ids_is_hashed_as_it_is(prompt: list[object]) -> None:
    """The engine says what is wrong with it, if anything is."""
    raw = json.dumps(prompt).encode()
    assert bytes(prompt_text(memoryview(raw))) == raw[:-1]


def test_a_salt_keeps_prefixes_apart() -> None:
    """Engines share no cache between requests of different `cache_salt`."""
    plain, one, other = (
        keys(messages=[user(text(TEXT))], **salt)
        for salt in ({}, {"cache_salt": "a"}, {"cache_salt": "b"})
    )
    assert len({plain[0], one[0], other[0]}) == 3


def test_a_mark_of_what_to_cache_does_not_end_the_prefix() -> None:
    """Clients of /v1/messages move it to the last message of each turn."""
    mark = {"cache_control": {"type": "ephemeral"}}
    system = [{**text(TEXT), **mark}]
    marked, plain = (user({**text(TEXT), **some}, text(TEXT)) for some in (mark, {}))
    first = keys("/v1/messages", system=system, messages=[marked])
    second = keys("/v1/messages", system=system, messages=[plain, user({**text("More"), **mark})])
    assert second[: len(first)] == first
    assert len(first) >= 3 * len(TEXT) // BLOCK_BYTES


def test_words_about_marks_stay() -> None:
    """A text that speaks of them is hashed whole."""
    about = [user(text('He wrote "cache_control": {"type": "ephemeral"} there. ' * 20 + "A" * 600))]
    other = [user(text('He wrote "cache_control": {"type": "persistent"} there.' * 20 + "A" * 600))]
    assert not set(keys("/v1/messages", messages=about)) & set(keys("/v1/messages", messages=other))


def test_a_system_line_that_differs_each_time_is_left_out() -> None:
    """Engines leave it out as well."""

    def first_key(number: int) -> int:
        line = text(f"x-anthropic-billing-header: cc_version={number}; cch={number};")
        system = [line, text(TEXT)]
        return keys("/v1/messages", system=system, messages=[user(text("Hello"))])[0]

    assert first_key(1) == first_key(2)


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize", "/v1/messages/count_tokens"])
def test_what_is_only_counted_is_in_no_cache(path: str) -> None:
    """It costs the engine no prefill and leaves nothing there."""
    body = json.dumps({"model": "m", "prompt": TEXT, "messages": [user(text(TEXT))]}).encode()
    request = parse_request_body(body, APIS[path])
    assert request.digest("m", None).block_keys == ()
    assert request.digest("m", None).prompt_bytes == 0
    assert request.max_output_tokens == 0


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/embeddings", {"input": TEXT}),
        ("/v1/rerank", {"query": TEXT, "documents": ["a", "b"]}),
        ("/v1/score", {"text_1": TEXT, "text_2": "b"}),
        ("/score", {"queries": "a", "items": [TEXT]}),
        ("/v1/responses", {"instructions": TEXT, "input": "a"}),
        ("/v1/responses", {"input": TEXT, "prompt": {"id": "pmpt_1"}}),
    ],
)
def test_each_api_has_its_prompt(path: str, fields: dict[str, object]) -> None:
    """Under whichever names."""
    assert len(keys(path, **fields)) >= len(TEXT) // BLOCK_BYTES


def test_the_user_of_messages_is_in_their_metadata() -> None:
    """Their requests spread alike; what others put there means nothing."""

    def affinity(path: str, metadata: object) -> int:
        body = json.dumps({"model": "m", "messages": [user(text(TEXT))], "metadata": metadata})
        return parse_request_body(body.encode(), APIS[path]).digest("m", None).affinity_key

    one = affinity("/v1/messages", {"user_id": "one"})
    assert one != affinity("/v1/messages", {"user_id": "other"})
    none = affinity("/v1/messages", None)
    assert none == affinity("/v1/messages", {}) == affinity("/v1/messages", {"user_id": 7})
    chat = "/v1/chat/completions"
    assert affinity(chat, {"user_id": "one"}) == affinity(chat, {"user_id": "other"})
