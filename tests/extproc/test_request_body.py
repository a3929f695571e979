"""Reading bodies: the prefix property of the keys, and exact errors for what cannot be read."""

import contextlib
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat_extproc.request_body import (
    MalformedBodyError,
    parse_request_body,
    rename_model,
)
from heliostat_routing.settings import BLOCK_BYTES

messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text(max_size=900)}
    ),
    min_size=1,
    max_size=5,
)


def encode(body: dict[str, object], *, indent: int | None = None) -> bytes:
    return json.dumps(body, ensure_ascii=False, indent=indent).encode("utf-8", "replace")


def keys(body: bytes, model: str = "m", adapter: str | None = None) -> tuple[int, ...]:
    return parse_request_body(body).digest(model, adapter).block_keys


@given(messages, messages, st.sampled_from([None, 2]))
def test_a_longer_conversation_keeps_every_key_of_its_earlier_turn(
    turn: list[dict[str, str]], more: list[dict[str, str]], indent: int | None
) -> None:
    """Appended messages change no key of the request before them, assistant turns included."""
    before = keys(encode({"model": "m", "messages": turn, "stream": True}, indent=indent))
    after = keys(encode({"model": "m", "messages": turn + more, "user": "u"}, indent=indent))
    assert after[: len(before)] == before


@given(st.binary(min_size=1, max_size=3000), st.data())
def test_a_changed_byte_changes_all_keys_from_its_block_on_and_none_before(
    content: bytes, data: st.DataObject
) -> None:
    """Keys are chained: they agree up to the change and never after it."""
    text = content.hex()
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + ("x" if text[at] != "x" else "y") + text[at + 1 :]
    old = keys(encode({"model": "m", "prompt": text}))
    new = keys(encode({"model": "m", "prompt": changed}))
    block = (at + 1) // BLOCK_BYTES
    assert old[:block] == new[:block]
    assert all(a != b for a, b in zip(old[block:], new[block:], strict=True))


def test_model_adapter_and_tools_are_part_of_every_key() -> None:
    """The same messages share nothing when anything before them differs."""
    body: dict[str, object] = {"model": "m", "messages": [{"content": "a" * 2000}]}
    with_tools = encode({**body, "tools": [{"name": "f"}]})
    with_other_tools = encode({**body, "tools": [{"name": "g"}]})
    plain = encode(body)
    variants = [
        keys(plain),
        keys(plain, model="other"),
        keys(plain, adapter="lora"),
        keys(with_tools),
        keys(with_other_tools),
    ]
    assert all(len(variant) >= 3 for variant in variants)
    for index in range(3):
        assert len({variant[index] for variant in variants}) == len(variants)


@pytest.mark.parametrize(
    ("preamble", "prompt"), [("system", "messages"), ("instructions", "input")]
)
def test_what_comes_before_the_prompt_is_part_of_every_key(preamble: str, prompt: str) -> None:
    """The system text of /v1/messages and /v1/responses is a field of its own."""

    def keys_with(text: str) -> tuple[int, ...]:
        return keys(encode({"model": "m", prompt: ["x" * 3000], preamble: text * 4000}))

    one, other = keys_with("A"), keys_with("B")
    assert len(one) >= 7000 // BLOCK_BYTES
    assert not set(one) & set(other)


def test_tools_and_messages_are_told_by_position_not_by_their_order_in_the_body() -> None:
    """Where the client puts the fields does not matter."""
    one = b'{"model":"m","tools":[{"a":1}],"messages":["' + b"x" * 2000 + b'"]}'
    two = b'{"messages":["' + b"x" * 2000 + b'"],"model":"m","tools":[{"a":1}]}'
    assert keys(one) == keys(two) != ()


def test_reads_the_fields_that_routing_needs() -> None:
    """Limits and affinity are read under each of their names."""
    body = parse_request_body(b'{"model":"m","stream":true,"max_completion_tokens":7,"user":"u"}')
    assert (body.model, body.max_output_tokens, body.affinity) == ("m", 7, "u")
    assert parse_request_body(b'{"model":"m","max_tokens":5.0}').max_output_tokens == 5
    assert parse_request_body(b'{"model":"m","max_tokens":-1}').max_output_tokens is None
    assert parse_request_body(b'{"model":"m","messages":null}').digest("m", None).prompt_bytes == 0


def test_affinity_follows_the_user_and_otherwise_the_first_block() -> None:
    """One user's requests spread alike whatever they say."""

    def affinity(**fields: object) -> int:
        return parse_request_body(encode({"model": "m", **fields})).digest("m", None).affinity_key

    assert affinity(user="u", prompt="a") == affinity(user="u", prompt="b")
    assert affinity(user="u", prompt="a") != affinity(user="v", prompt="a")
    assert affinity(prompt="a" * 600) == affinity(prompt="a" * 600 + "b" * 600)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is empty"),
        (b" \r\n", "the body is empty"),
        (b"[]", "Expected `object`"),
        (b'{"model":"m"', "not JSON"),
        (b'{"model":"m"} x', "not JSON"),
        (b"{}", "missing field `model`"),
        (b'{"model":""}', "must not be empty"),
        (b'{"model":7}', "`model`"),
        (b'{"model":"m","stream":"yes"}', "`stream`"),
        (b'{"model":"m","max_tokens":"x"}', "`max_tokens`"),
        (b'{"model":"m","messages":[1,}', "not JSON"),
        (b'{"model":"\xff"}', "not UTF-8 (byte 10)"),
        (b'{"model":"' + "ü".encode() * 300_000 + b"\xff", "not UTF-8 (byte 600010)"),
        (b'{"model":"m' + "ü".encode() * 131_066 + b"\xc3", "not UTF-8 (byte 262143)"),
        (rb'{"model":"m","messages":["\ud83d"]}', "half of a surrogate pair"),
        (rb'{"model":"m","messages":["\ud83d\ud83d\ude00"]}', "half of a surrogate pair"),
        (rb'{"model":"m","messages":["\ud83d\ude00\ude00"]}', "half of a surrogate pair"),
        (rb'{"model":"m","messages":["\ud83d\ude00"]', "not JSON: Input data was truncated"),
        (b'{"model":"m","messages":' + b"[" * 200_000, "nested too deeply"),
    ],
)
def test_a_malformed_body_says_what_is_wrong(body: bytes, words: str) -> None:
    """Each kind of malformed body is a typed error whose text names the fault."""
    with pytest.raises(MalformedBodyError) as caught:
        parse_request_body(body)
    assert words in caught.value.detail


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """No input raises anything but the error that is for it."""
    with contextlib.suppress(MalformedBodyError):
        assert parse_request_body(body).model


def test_renaming_the_model_leaves_every_other_byte() -> None:
    """Only the value of the top-level key changes, not its like inside a prompt or a nested one."""
    body = b'{"tools":[{"model":"a"}], "x":"\\"model\\":\\"a\\"", "model" : "a", "n":1.50}'
    assert rename_model(body, "a", "b") == body.replace(b'"model" : "a"', b'"model" : "b"')


@given(st.text(min_size=1, max_size=20), st.text(max_size=20))
def test_a_renamed_body_asks_for_the_new_model_and_the_same_prompt(name: str, text: str) -> None:
    """Renaming changes who is asked and nothing that is asked."""
    body = json.dumps({"messages": [{"model": name, "content": text}], "model": name}).encode()
    try:
        parse_request_body(body)
    except MalformedBodyError:
        return  # a lone surrogate is no UTF-8
    renamed = json.loads(rename_model(body, name, "canonical"))
    assert renamed == {**json.loads(body), "model": "canonical"}


def test_a_key_is_not_looked_for_through_much_of_a_large_body() -> None:
    """Of a body of megabytes few candidates are tried, of a small one many."""
    decoys = b'{"messages":[%s' % (b'{"model":"a"},' * 10)
    small = decoys + b'0],"model":"a"}'
    large = decoys + b" " * (16 * 1024 * 1024) + b'0],"model":"a"}'
    assert rename_model(small, "a", "b") == small[:-3] + b'b"}'
    with pytest.raises(MalformedBodyError):
        rename_model(large, "a", "b")


def test_a_long_value_that_is_not_the_model_costs_little_memory() -> None:
    """Renaming takes a few times the body, whatever is under a `model` further down."""
    decoy = b"a" * (1024 * 1024) + b"\\n" * (1024 * 1024)
    body = b'{"x":{"model":"%s"},"model":"a"}' % decoy
    tracemalloc.start()
    renamed = rename_model(body, "a", "b")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert renamed.endswith(b'"model":"b"}')
    assert peak_bytes < 8 * len(body)


def test_a_hidden_model_key_cannot_be_renamed() -> None:
    """An escaped key is refused with what to do about it."""
    with pytest.raises(MalformedBodyError, match="without escapes"):
        rename_model(b'{"mod\\u0065l":"a"}', "a", "b")
