"""Kubernetes quantities: `8Gi`, `500m`, `4`."""

import re
from decimal import Decimal
from typing import Annotated, Any, TypeAlias

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from heliostat_crds import cel
from heliostat_crds.fields import VALIDATIONS

QUANTITY_PATTERN = r"^[0-9]{1,15}(\.[0-9]{1,9})?([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]{1,2})?$"
"""What a quantity that is not negative looks like, as JSON schema takes it."""

_NOT_A_QUANTITY = 'is not a quantity; write a number and a unit, such as "8Gi" or "500m"'
_QUANTITY = re.compile(
    r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,9})?)"
    r"(?:(?P<unit>[KMGTPE]i|[numkMGTPE])|[eE](?P<exponent>[-+]?[0-9]{1,2}))?",
    re.ASCII,
)
_FACTORS = {
    **{unit: Decimal(10) ** power for unit, power in zip("num", (-9, -6, -3), strict=True)},
    **{unit: Decimal(1000) ** (i + 1) for i, unit in enumerate("kMGTPE")},
    **{f"{unit}i": Decimal(1024) ** (i + 1) for i, unit in enumerate("KMGTPE")},
}


class QuantityError(ValueError):
    """The value is not a quantity."""


def parse_quantity(value: str | int) -> Decimal:
    """Give the quantity as a number; QuantityError says what is allowed."""
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        raise QuantityError(f'"{value}" {_NOT_A_QUANTITY}')
    if match["unit"] is not None:
        return Decimal(match["number"]) * _FACTORS[match["unit"]]
    return Decimal(match["number"]).scaleb(int(match["exponent"] or 0))


def _rule(value: str) -> dict[str, Any]:
    rule = f"{value}.matches({cel.text(QUANTITY_PATTERN)})"
    return cel.told_rule(rule, _NOT_A_QUANTITY, value)


class _Quantity:
    """Annotates what is a quantity; as an integer too where the field takes one."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(_checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        described = {
            "type": "string",
            "maxLength": 32,
            "allowed": "a Kubernetes quantity, such as `8Gi`, `500m` or `4`",
        }
        if "anyOf" not in handler(schema):
            return {**described, VALIDATIONS: [_rule("self")]}
        return {
            **described,
            "x-kubernetes-int-or-string": True,
            VALIDATIONS: [_rule("string(self)")],
        }


def _checked(value: str | int) -> str | int:
    parse_quantity(value)
    return value


Quantity: TypeAlias = Annotated[str | int, _Quantity()]
"""An amount of a resource, as text or as an integer."""
Size: TypeAlias = Annotated[str, _Quantity()]
"""A number of bytes, as text."""
