"""Reads multipart/form-data, in which audio comes: which model, which text, which file.

The parts are found in the body as it came, and nothing of it is copied or re-encoded.
"""

import re
from dataclasses import dataclass
from email.message import Message

from heliostat_extproc.errors import InputError, Reason

MOST_PARTS = 64
MOST_PART_HEADER_BYTES = 4096
MOST_PARAMETERS = 16
"""Of one header. They are read in a time that grows with their square: a header of nothing else
would hold up every request for seconds."""

_DISPOSITION = re.compile(rb"\r\ncontent-disposition[ \t]*:([^\r\n]*)", re.I)


class MalformedFormError(InputError):
    """The body is no form that an engine could read."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.MALFORMED_REQUEST, detail)


@dataclass(frozen=True, slots=True)
class FormPart:
    """Where the content of one part of a form lies in the body."""

    name: str
    start: int
    end: int
    is_file: bool


def read_form(body: bytes, content_type: str) -> list[FormPart]:
    """Find the parts; raise `MalformedFormError` where the body is not whole and well-formed."""
    delimiter = b"\r\n--" + _read_boundary(content_type)
    opening = delimiter[2:]
    if not body.startswith(opening):
        raise MalformedFormError("the form does not begin with its boundary")
    parts: list[FormPart] = []
    at = len(opening)
    while not body.startswith(b"--", at):
        if len(parts) == MOST_PARTS:
            raise MalformedFormError(f"the form has more than {MOST_PARTS} parts")
        end = body.find(delimiter, at)
        if end < 0:
            raise MalformedFormError("the form does not end with its boundary")
        parts.append(_read_part(body, at, end))
        at = end + len(delimiter)
    return parts


def _read_boundary(content_type: str) -> bytes:
    header = _header("content-type", content_type)
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/form-data" or not boundary:
        raise MalformedFormError("the content type must be multipart/form-data with a boundary")
    return boundary.encode("utf-8", "surrogateescape")


def _read_part(body: bytes, start: int, end: int) -> FormPart:
    headers_end = body.find(b"\r\n\r\n", start, min(end, start + MOST_PART_HEADER_BYTES))
    if not body.startswith(b"\r\n", start) or headers_end < 0:
        raise MalformedFormError("a part of the form has no headers that can be read")
    line = _DISPOSITION.search(body, start, headers_end)
    disposition = "" if line is None else line[1].decode("utf-8", "replace")
    header = _header("content-disposition", disposition)
    name = header.get_param("name", header="content-disposition")
    if header.get_content_disposition() != "form-data" or not isinstance(name, str):
        raise MalformedFormError("a part of the form has no name")
    is_file = header.get_param("filename", header="content-disposition") is not None
    return FormPart(name, headers_end + 4, end, is_file)


def _header(name: str, value: str) -> Message:
    if value.count(";") > MOST_PARAMETERS:
        raise MalformedFormError(f"`{name}` has more than {MOST_PARAMETERS} parameters")
    header = Message()
    header[name] = value
    return header
