"""Rules between fields: told once, held by the API server as CEL and by our own reading alike."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple


class Misfit(NamedTuple):
    """Where a rule is broken, from the value that it is about; `message` where values help."""

    at: tuple[str | int, ...] = ()
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """What must hold for one part of a resource.

    `cel` is the rule in the API server's expression language, None where its cost bound forbids
    it; `check` is the same rule in Python, None where only the API server can tell (it alone knows
    what was there before). `message_cel` gives a message that holds the values at fault.
    """

    message: str
    cel: str | None = None
    message_cel: str | None = None
    check: Callable[[Any], Misfit | None] | None = None

    def validation(self) -> dict[str, str]:
        """Write the rule as an entry of `x-kubernetes-validations`."""
        entry = {"rule": self.cel or "", "message": self.message}
        return (
            entry if self.message_cel is None else {**entry, "messageExpression": self.message_cel}
        )


def unchanged(message: str) -> Rule:
    """Give the rule that a value stays what it was at creation."""
    return Rule(message, cel="self == oldSelf")
