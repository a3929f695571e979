"""What is wrong with a manifest, where, and what would be right."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ManifestProblem:
    """One thing wrong in one file.

    `line` counts from 1, None where the whole file is meant. `field` is a path such as
    `spec.endpoints[1].address`, empty where no field is meant.
    """

    file: str
    line: int | None
    field: str
    message: str

    def __str__(self) -> str:
        """Write the problem as compilers do: `file:line: field: message`."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.field, self.message) if part)
