"""The token counts that Envoy reads out of an answer, `envoy.data.ai.v3.TokenUsage`.

No published package has its generated class yet, so the few fields needed are described here: all
are wrapped 64-bit counts, absent where the engine has not reported them.
"""

from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory, wrappers_pb2

_PACKAGE = "heliostat.envoy"
_INPUT_TOKENS, _OUTPUT_TOKENS, _INPUT_DETAILS, _CACHED_TOKENS = 3, 4, 6, 1


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """What an answer cost, as the engine reports it; None where it does not."""

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None


NO_USAGE = TokenUsage()


def parse_token_usage(serialized: bytes) -> TokenUsage:
    """Decode a serialized TokenUsage; ValueError where it is none."""
    try:
        usage = _TokenUsageProto.FromString(serialized)
    except message.DecodeError as error:
        raise ValueError(str(error)) from error
    return TokenUsage(
        prompt_tokens=_count(usage, "input_tokens"),
        cached_tokens=_count(usage.input_token_details, "cached_tokens"),
        output_tokens=_count(usage, "output_tokens"),
    )


def _count(parent: message.Message, field: str) -> int | None:
    return int(getattr(parent, field).value) if parent.HasField(field) else None


def _describe() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="heliostat/envoy/token_usage.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    count = ".google.protobuf.UInt64Value"
    details = file.message_type.add(name="InputTokenDetails")
    _add_field(details, "cached_tokens", _CACHED_TOKENS, count)
    usage = file.message_type.add(name="TokenUsage")
    _add_field(usage, "input_tokens", _INPUT_TOKENS, count)
    _add_field(usage, "output_tokens", _OUTPUT_TOKENS, count)
    _add_field(usage, "input_token_details", _INPUT_DETAILS, f".{_PACKAGE}.InputTokenDetails")
    return file


def _add_field(
    owner: descriptor_pb2.DescriptorProto, name: str, number: int, type_name: str
) -> None:
    kind = descriptor_pb2.FieldDescriptorProto
    owner.field.add(
        name=name,
        number=number,
        type=kind.TYPE_MESSAGE,
        label=kind.LABEL_OPTIONAL,
        type_name=type_name,
    )


_pool = descriptor_pool.Default()
_pool.Add(_describe())
_TokenUsageProto: Any = message_factory.GetMessageClass(
    _pool.FindMessageTypeByName(f"{_PACKAGE}.TokenUsage")
)
