"""Where examples come from: the corpus and what is cut, doubled, bent and spliced of it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

CORPUS = Path(__file__).parent / "corpus"
Draw = Callable[[st.SearchStrategy[Any]], Any]

_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 3) | st.integers(0, 2**64 - 1),
}


def corpus(folder: str) -> list[bytes]:
    """Read all files of a folder of the corpus."""
    files = sorted((CORPUS / folder).iterdir())
    assert files, f"{folder} has no corpus"
    return [file.read_bytes() for file in files]


@st.composite
def mutated(draw: Draw, seeds: Sequence[bytes], fragments: Sequence[bytes]) -> bytes:
    """Give a seed as it is, or with up to six changes."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        match draw(st.integers(0, 5)):
            case 0:
                data[start:end] = draw(st.sampled_from(fragments))
            case 1:
                data[start:start] = draw(st.sampled_from(fragments)) * draw(st.integers(1, 50))
            case 2:
                data[start:end] = draw(st.binary(max_size=8))
            case 3:
                data[start:start] = data[start:end]
            case 4:
                del data[start:]
            case _:
                data[start:] = draw(st.sampled_from(seeds))[start:]
    return bytes(data)


@st.composite
def filled(
    draw: Draw,
    kind: type[Message],
    texts: Sequence[str],
    bases: Sequence[Message] = (),
    depth: int = 5,
) -> Message:
    """Give an empty message, or one of these, with any fields set; texts are known ones, or any."""
    message = kind()
    message.CopyFrom(draw(st.sampled_from([kind(), *bases])))
    fields = list(kind.DESCRIPTOR.fields)
    chosen = st.lists(st.sampled_from(fields), max_size=len(fields), unique_by=lambda it: it.number)
    for field in draw(chosen):
        value = _values(field, texts, depth)
        if value is None:
            continue
        if field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(value, max_size=3)))
        elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            getattr(message, field.name).CopyFrom(draw(value))
        else:
            setattr(message, field.name, draw(value))
    return message


def _values(
    field: FieldDescriptor, texts: Sequence[str], depth: int
) -> st.SearchStrategy[Any] | None:
    """Say what a field can hold; None for what is left out."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        if depth == 0 or field.message_type.GetOptions().map_entry:
            return None
        return filled(field.message_type._concrete_class, texts, (), depth - 1)
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return st.sampled_from([value.number for value in field.enum_type.values])
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        known = st.sampled_from(texts) | st.text(max_size=20)
        return st.binary(max_size=20) if field.type == FieldDescriptor.TYPE_BYTES else known
    return _SCALARS[field.cpp_type]
