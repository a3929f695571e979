"""Kubernetes quantities: `8Gi`, `500m`, `4`."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, TypeAlias

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
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


@dataclass(frozen=True, slots=True)
class _IsQuantity:
    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {
            "type": "string",
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "maxLength": 32,
            "allowed": "a Kubernetes quantity, such as `8Gi`, `500m` or `4`",
            VALIDATIONS: [
                cel.told_rule(
                    f"string(self).matches({cel.text(QUANTITY_PATTERN)})",
                    _NOT_A_QUANTITY,
                    "string(self)",
                )
            ],
        }

    def _check(self, value: str | int) -> str | int:
        parse_quantity(value)
        return value


Quantity: TypeAlias = Annotated[str | Annotated[int, Field(ge=0)], _IsQuantity()]
"""An amount of a resource."""
