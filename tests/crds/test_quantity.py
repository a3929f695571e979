from decimal import Decimal

import pytest

from heliostat_crds.quantity import QuantityError, parse_quantity


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("8Gi", Decimal(8 * 1024**3)),
        ("1.5Ki", Decimal(1536)),
        ("500m", Decimal("0.5")),
        ("2k", Decimal(2000)),
        ("1e3", Decimal(1000)),
        ("15E-1", Decimal("1.5")),
        ("3E", Decimal(3 * 10**18)),
        ("0", Decimal(0)),
        (4, Decimal(4)),
    ],
)
def test_quantities_are_read_as_kubernetes_does(value: str | int, number: Decimal) -> None:
    """Binary and decimal units, exponents and plain integers give a number."""
    assert parse_quantity(value) == number


@pytest.mark.parametrize(
    "value", ["", "8 Gi", "8gi", "-1", -1, "1Kib", "Gi", "1e", ".5", "٣", "1\n"]
)
def test_other_values_are_no_quantity(value: str | int) -> None:
    """What is not a quantity, or is negative, is refused with an example of what is one."""
    with pytest.raises(QuantityError, match="8Gi"):
        parse_quantity(value)
