"""Tables as the command prints them and as the documents hold them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a header. The first column names the row, the others hold numbers."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"{len(row)} cells under {len(self.header)} headings: {row}")

    def to_text(self) -> str:
        """Aligned columns, for a terminal; ends in a newline. An empty header is left out."""
        widths = self._widths()
        lines = [self.title] if self.title else []
        for row in (self.header, *self.rows) if any(self.header) else self.rows:
            cells = [row[0].ljust(widths[0]), *_right(row[1:], widths[1:])]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines) + "\n"

    def to_markdown(self) -> str:
        """A Markdown table, its title in bold before it; ends in a newline."""
        escaped = Table(_escaped(self.header), tuple(_escaped(row) for row in self.rows))
        widths = [max(4, width) for width in escaped._widths()]
        lines = [f"**{self.title}**", ""] if self.title else []
        rule = ("-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:]))
        for row in (escaped.header, rule, *escaped.rows):
            cells = [row[0].ljust(widths[0]), *_right(row[1:], widths[1:])]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    def _widths(self) -> list[int]:
        columns = zip(self.header, *self.rows, strict=True)
        return [max(len(cell) for cell in column) for column in columns]


def _right(cells: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    return (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def _escaped(cells: Sequence[str]) -> tuple[str, ...]:
    return tuple(cell.replace("|", "\\|") for cell in cells)
