"""The building blocks of the models: strictness, shared field types, errors that point exactly."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from heliostat_crds.duration import DURATION_PATTERN, parse_duration

AT = "at"
"""Key of an error's context: the path from the validated value to the culprit inside it."""

T = TypeVar("T")
Items = Annotated[tuple[T, ...], Field(strict=False)]
"""A YAML list, kept immutable."""

ModelName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=256,
        pattern=r"^[!-~]+$",
        json_schema_extra={"allowed": "1 to 256 printable ASCII characters, no spaces"},
    ),
]
"""A name that clients may ask for."""


class Strict(BaseModel):
    """A part of a manifest: camelCase, no unknown fields, no coercion, immutable."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        strict=True,
        frozen=True,
        use_attribute_docstrings=True,
    )


def misfit(message: str, *at: str | int) -> PydanticCustomError:
    """Give the error that a validator raises; `at` leads from its value to the culprit."""
    return PydanticCustomError("misfit", "{message}", {"message": message, AT: at})


@dataclass(frozen=True, slots=True)
class DurationBetween:
    """Annotates text that is a duration in these bounds, both included."""

    minimum: str
    maximum: str

    def __get_pydantic_core_schema__(
        self, source: type[str], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Check the text after pydantic has."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Describe the text."""
        return {
            **handler(schema),
            "pattern": DURATION_PATTERN,
            "allowed": f"a duration from {self.minimum} to {self.maximum}",
        }

    def _check(self, text: str) -> str:
        seconds = parse_duration(text)
        if not parse_duration(self.minimum) <= seconds <= parse_duration(self.maximum):
            raise misfit(f'"{text}" is out of range; allowed: {self.minimum} to {self.maximum}')
        return text


def first_repeated(values: Iterable[T]) -> int | None:
    """Give the index of the first value that has been there before."""
    seen: set[T] = set()
    for index, value in enumerate(values):
        if value in seen:
            return index
        seen.add(value)
    return None
