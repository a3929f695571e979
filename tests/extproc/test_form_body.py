"""Forms: which part is which, whatever they hold, and exact errors for what is no form."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat_extproc.apis import APIS
from heliostat_extproc.errors import InputError
from heliostat_extproc.form_body import MOST_PARTS, MalformedFormError, read_form
from heliostat_extproc.request_body import RequestBody, read_request

BOUNDARY = "----a-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
API = APIS["/v1/audio/transcriptions"]


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n'
    kind = "" if filename is None else "Content-Type: audio/wav\r\n"
    return (head + kind + "\r\n").encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def read(body: bytes, content_type: str = FORM) -> RequestBody:
    return read_request(body, API, content_type)


@given(st.binary(max_size=300), st.booleans())
def test_any_file_may_stand_before_or_after_the_model(content: bytes, first: bool) -> None:
    """The model is read, and renamed without a change to the file."""
    file, model = part("file", content, "a.wav"), part("model", b"whisper")
    body = form(file, model) if first else form(model, file)
    if BOUNDARY.encode() in content:
        return
    request = read(body)
    assert request.model == "whisper"
    other = part("model", b"a longer name")
    assert request.renamed("a longer name") == (form(file, other) if first else form(other, file))


def test_the_same_sound_is_the_same_prefix() -> None:
    """Engines keep what they have made of it."""

    def keys(content: bytes) -> tuple[int, ...]:
        body = form(part("model", b"m"), part("file", content, "a.wav"))
        return read(body).digest("m", None).block_keys

    assert keys(b"a" * 90_000) == keys(b"a" * 90_000) != keys(b"b" * 90_000)
    assert len(keys(b"a" * 90_000)) > 1


def test_a_boundary_may_be_quoted_and_have_neighbours() -> None:
    """As clients write it."""
    body = form(part("model", b"m"))
    for content_type in (
        f'multipart/form-data; boundary="{BOUNDARY}"',
        f"Multipart/Form-Data; charset=utf-8; boundary={BOUNDARY}",
        f"multipart/form-data;boundary={BOUNDARY}; charset=utf-8",
    ):
        assert read(body, content_type).model == "m"


WHOLE = form(part("model", b"m"), part("file", b"x", "a.wav"))


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (b'{"model":"m"}', "application/json", "must be multipart/form-data"),
        (b"", FORM, "does not begin"),
        (WHOLE[:-8], FORM, "does not end"),
        (WHOLE, FORM + "x", "does not begin"),
        (form(part("file", b"x", "a.wav")), FORM, "one field `model`"),
        (form(part("model", b"a"), part("model", b"b")), FORM, "one field `model`"),
        (form(part("model", b"m", "a.wav")), FORM, "one field `model`"),
        (form(part("model", b"")), FORM, "must not be empty"),
        (form(part("model", b"\xff")), FORM, "not UTF-8"),
        (form(part("model", b"m")).replace(b"form-data;", b"other;"), FORM, "has no name"),
        (form(part("model", b"m")).replace(b'name="model"', b""), FORM, "has no name"),
        (form(part("model" * 1000, b"m")), FORM, "no headers"),
        (form(*[part("a", b"")] * (MOST_PARTS + 1)), FORM, "more than"),
        (WHOLE, FORM + '; a="' + ";" * 50_000, "`content-type` has more than"),
        (form(part("a" + ";" * 3000, b"m")), FORM, "`content-disposition` has more than"),
    ],
)
def test_a_malformed_form_says_what_is_wrong(body: bytes, content_type: str, words: str) -> None:
    """Each is a typed error whose text names the fault."""
    with pytest.raises(InputError) as caught:
        read(body, content_type)
    assert words in caught.value.detail


@given(st.binary(max_size=200), st.text(max_size=100))
def test_any_form_is_read_or_refused(noise: bytes, content_type: str) -> None:
    """No input raises anything but the error that is for it."""
    for body in (noise, WHOLE[:40] + noise + WHOLE[40:]):
        for declared in (content_type, FORM):
            with contextlib.suppress(MalformedFormError):
                assert len(read_form(body, declared)) <= MOST_PARTS
