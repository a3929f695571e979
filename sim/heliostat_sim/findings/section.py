"""What a section of the evaluation hands in: text, pictures, and goals that it can judge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import fill

from heliostat_sim.evaluation import Table

_COLUMNS = 100


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal, with what was reached."""

    key: str
    """What remarks are filed under."""
    words: str
    target: str
    reached: str
    met: bool | None
    """None: it could not be judged in this run."""
    established: bool = True
    """False: met by the mean ratio, while the target lies within the ratio's 95 % limits."""
    applies: bool = True
    """False: its condition does not hold, and it counts neither as met nor as missed."""


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the document."""

    title: str
    parts: tuple[str, ...]
    """Markdown paragraphs, tables and pictures."""
    goals: tuple[Goal, ...] = ()
    pictures: Mapping[str, str] = field(default_factory=dict)
    """SVG by file name, without the ending."""


class Draft:
    """Collects a section part by part."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[str] = []
        self._goals: list[Goal] = []
        self._pictures: dict[str, str] = {}

    def say(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(_wrapped(text))

    def items(self, lines: Sequence[str]) -> None:
        """A list, its marks included."""
        self._parts.append("\n".join(_wrapped(line, "  ") for line in lines))

    def heading(self, text: str) -> None:
        """A heading within the section."""
        self._parts.append(f"### {text}")

    def table(self, table: Table) -> None:
        """A table."""
        self._parts.append(table.to_markdown().rstrip("\n"))

    def picture(self, name: str, alternative: str, svg: str) -> None:
        """A picture, kept beside the document."""
        self._pictures[name] = svg
        self._parts.append(f"![{alternative}](evaluation/{name}.svg)")

    def goals(self, goals: Sequence[Goal]) -> None:
        """Goals that this section judges."""
        self._goals += goals

    def done(self) -> Section:
        """The section."""
        return Section(self._title, tuple(self._parts), tuple(self._goals), dict(self._pictures))


def _wrapped(text: str, indent: str = "") -> str:
    return fill(
        " ".join(text.split()),
        _COLUMNS,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
