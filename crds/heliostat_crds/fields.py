"""The building blocks of the models: strictness, shared field types, errors that point exactly."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from heliostat_crds import cel
from heliostat_crds.duration import (
    DURATION_PATTERN,
    MAX_DURATION_CHARACTERS,
    NOT_A_DURATION,
    parse_duration,
)
from heliostat_crds.rules import Rule

AT = "at"
"""Key of an error's context: the path from the validated value to the culprit inside it."""

T = TypeVar("T")
Items = Annotated[tuple[T, ...], Field(strict=False)]
"""A YAML list, kept immutable."""

VALIDATIONS = "x-kubernetes-validations"
"""Key of a schema's CEL rules."""

MODEL_NAME_PATTERN = r"^[!-~]+$"
ModelName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=256,
        pattern=MODEL_NAME_PATTERN,
        json_schema_extra={"allowed": "1 to 256 printable ASCII characters, no spaces"},
    ),
]
"""A name that clients may ask for."""

Text = Annotated[str, Field(min_length=1, max_length=4096, json_schema_extra={"allowed": ""})]
"""Text that is passed on as it is."""

ObjectName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        json_schema_extra={
            "allowed": "the name of an object: 1 to 253 lower-case letters, digits, `-` and `.`"
        },
    ),
]
"""The name of another Kubernetes object."""

LabelValue = Annotated[
    str,
    Field(
        max_length=63,
        pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
        json_schema_extra={
            "allowed": "at most 63 letters, digits, `-`, `_` and `.`,"
            " a letter or digit at both ends"
        },
    ),
]
"""The value of a label."""
Labels: TypeAlias = dict[str, LabelValue]
"""Labels by key."""

FreeForm = Annotated[
    dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})
]
"""A mapping that Kubernetes itself checks when the objects made from it are applied."""


class Strict(BaseModel):
    """A part of a manifest: camelCase, no unknown fields, no coercion, immutable."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        strict=True,
        frozen=True,
        use_attribute_docstrings=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    """What must hold between the fields."""

    @model_validator(mode="after")
    def _hold_rules(self) -> Self:
        for rule in self.rules:
            found = rule.check(self) if rule.check is not None else None
            if found is not None:
                raise misfit(found.message or rule.message, *found.at)
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Add the rules that the API server can hold."""
        written = [rule.validation() for rule in cls.rules if rule.cel is not None]
        described = handler(schema)
        return {**described, VALIDATIONS: written} if written else described


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
        is_duration = f"self.matches({cel.text(DURATION_PATTERN)})"
        in_range = (
            f"duration(self) >= duration('{self.minimum}')"
            f" && duration(self) <= duration('{self.maximum}')"
        )
        return {
            **handler(schema),
            "maxLength": MAX_DURATION_CHARACTERS,
            "allowed": f"a duration from {self.minimum} to {self.maximum}",
            VALIDATIONS: [
                cel.told_rule(is_duration, NOT_A_DURATION),
                cel.told_rule(
                    f"!{is_duration} || ({in_range})",
                    f"is out of range; allowed: {self.minimum} to {self.maximum}",
                ),
            ],
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
