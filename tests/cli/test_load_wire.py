import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat_cli.loading.histogram import DurationHistogram
from heliostat_cli.loading.wire import (
    AnswerReader,
    Usage,
    encode_message,
    encode_request,
    error_code,
)


def chunk(**fields: object) -> bytes:
    return b"data: " + json.dumps({"id": "c", **fields}).encode() + b"\n\n"


def content(text: str) -> bytes:
    return chunk(choices=[{"index": 0, "delta": {"content": text}}], usage=None)


ROLE = chunk(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}])
USAGE = chunk(
    choices=[],
    usage={
        "prompt_tokens": 30,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 16},
    },
)
DONE = b"data: [DONE]\n\n"


def read(stream: bytes, cuts: list[int] | None = None) -> AnswerReader:
    """Feed the stream cut at the given places, one second apart."""
    reader = AnswerReader(DurationHistogram(), keep_text=True)
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts or [])})
    for second, (start, end) in enumerate(itertools.pairwise(edges)):
        reader.feed(stream[start:end], float(second))
    return reader


@given(
    st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=6),
    st.lists(st.integers(0, 10_000), max_size=30),
)
def test_any_cut_of_the_stream_reads_the_same(texts: list[str], cuts: list[int]) -> None:
    """However the network cuts a stream, text, chunks, usage and end are the same."""
    stream = ROLE + b"".join(content(text) for text in texts) + USAGE + DONE
    reader = read(stream, cuts)
    assert json.loads(b'"%b"' % reader.escaped_text) == "".join(texts)
    assert reader.content_chunks == len(texts)
    assert reader.usage == Usage(prompt_tokens=30, output_tokens=3, cached_tokens=16)
    assert reader.is_done
    assert reader.failure is None


def test_first_token_is_the_first_content() -> None:
    """A role without content and comments are no tokens; gaps are between chunks with content."""
    gaps = DurationHistogram()
    reader = AnswerReader(gaps, keep_text=False)
    for now, piece in enumerate([b": ping\r\n\r\n", ROLE, content("a"), content("b"), DONE]):
        reader.feed(piece, float(now))
    assert reader.first_content_at == 2.0
    assert (gaps.count, gaps.max_seconds) == (1, 1.0)
    assert reader.escaped_text == b""


def test_text_that_looks_like_the_wire_is_text() -> None:
    """An answer that quotes the protocol is neither usage nor an error nor an end."""
    text = '{"error": {"code": "x"}, "usage": {"prompt_tokens": 1}} data: [DONE] "content":"no"'
    reader = read(content(text))
    assert json.loads(b'"%b"' % reader.escaped_text) == text
    assert (reader.usage, reader.failure, reader.is_done) == (None, None, False)


def test_an_error_inside_the_stream_is_a_failure() -> None:
    """An error chunk fails the answer with its code, even where [DONE] follows."""
    error = chunk().replace(b'{"id": "c"}', b'{"error": {"message": "m", "code": "gone"}}')
    assert read(content("a") + error + DONE).failure == "sse-error gone"


def test_usage_without_cache_details_is_unknown() -> None:
    """An engine that does not report cached tokens counts as unknown, not as zero."""
    usage = {"prompt_tokens": 4, "completion_tokens": 2, "prompt_tokens_details": None}
    assert read(chunk(choices=[], usage=usage)).usage == Usage(4, 2, None)
    assert read(chunk(choices=[], usage={"prompt_tokens": "x"})).usage is None


def test_an_endless_line_is_bounded() -> None:
    """A stream without line ends fails instead of filling the memory."""
    reader = read(b"data: " + b"x" * (3 << 20), [1 << 20, 2 << 20])
    assert reader.failure == "sse-error line-too-long"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error": {"code": "queue-full", "type": "t"}}', "queue-full"),
        (b'{"error": {"code": 404, "type": "NotFoundError"}}', "NotFoundError"),
        (b'{"error": "text"}', None),
        (b'{"error": {}}', None),
        (b"[1]", None),
        (b"upstream connect error", None),
        (b"\xff", None),
    ],
)
def test_error_bodies_name_their_code(body: bytes, code: str | None) -> None:
    """The code is read where the body is OpenAI's; anything else has none."""
    assert error_code(body) == code


@given(st.text(max_size=20), st.integers(1, 9999))
def test_requests_are_json(model: str, output_tokens: int) -> None:
    """A request joined from bytes is the JSON that was meant, earlier answers included."""
    answer = json.dumps('say "hi"\n')[1:-1].encode()
    messages = [encode_message("user", b"tok "), encode_message("assistant", answer)]
    body = json.loads(encode_request(model, messages, output_tokens))
    assert body["model"] == model
    assert body["max_tokens"] == output_tokens
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})
    assert body["ignore_eos"] is True
    assert body["messages"] == [
        {"role": "user", "content": "tok "},
        {"role": "assistant", "content": 'say "hi"\n'},
    ]
