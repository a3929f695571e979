"""Just enough SVG for the charts: elements as text, and colours for light and dark pages.

A picture in a page cannot know the page's theme for certain, so it brings its own ground; colours
follow what the reader's system prefers.
"""

from collections.abc import Iterable
from xml.sax.saxutils import escape, quoteattr

_STYLE = """
text{font:12px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#57606a}
.title{font-size:14px;font-weight:600;fill:#1f2328}
.ground{fill:#ffffff}
.grid{stroke:#d8dee4}
.axis{stroke:#8c959f}
.limits{stroke:#57606a}
@media(prefers-color-scheme:dark){
text{fill:#9198a1}
.title{fill:#e6edf3}
.ground{fill:#0d1117}
.grid{stroke:#262c36}
.axis{stroke:#6e7681}
.limits{stroke:#c9d1d9}
}
"""

COLOURS = (
    *("#2f7fe0", "#e0662a", "#2a9d5c", "#9b6cf0", "#d9476a", "#189aa8", "#b58900", "#7d8590"),
)
"""Told apart on white and on black; after the last they begin anew, and the dashes change."""

DASHES = ("", "6 3", "2 3")


def colour(index: int) -> str:
    """The colour of the series with this index."""
    return COLOURS[index % len(COLOURS)]


def dashes(index: int) -> str:
    """The dashes of the series with this index; empty for a full line."""
    return DASHES[index // len(COLOURS) % len(DASHES)]


def coordinate(value: float) -> str:
    """A length or place in pixels, to a tenth."""
    return f"{value:.1f}".removesuffix(".0")


def element(tag: str, content: str | None = None, **attributes: str | float | None) -> str:
    """An element; `class_` stands for class, and underscores for hyphens. None is left out."""
    written = []
    for name, value in attributes.items():
        if value is None or value == "":
            continue
        text = value if isinstance(value, str) else coordinate(value)
        written.append(f" {name.rstrip('_').replace('_', '-')}={quoteattr(text)}")
    start = f"<{tag}{''.join(written)}"
    return f"{start}/>" if content is None else f"{start}>{content}</{tag}>"


def label(
    words: str, x: float, y: float, anchor: str = "start", class_: str = "", turn: float = 0.0
) -> str:
    """A text whose start, middle or end is at this place; turned by degrees around it."""
    turned = f"rotate({turn:g} {coordinate(x)} {coordinate(y)})" if turn else ""
    return element(
        "text", escape(words), x=x, y=y, text_anchor=anchor, class_=class_, transform=turned
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Iterable[tuple[float, float]], *, closed: bool = False) -> str:
    """The `d` of a path through these points."""
    steps = " L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in points)
    return f"M{steps}{'Z' if closed else ''}"


def document(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """The whole picture; ends in a newline."""
    size = f"{coordinate(width)} {coordinate(height)}"
    body = [
        element("title", escape(title)),
        element("style", escape(_STYLE)),
        element("rect", width=width, height=height, rx=6, class_="ground"),
        *parts,
    ]
    content = "\n" + "\n".join(body) + "\n"
    svg = element(
        "svg",
        content,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {size}",
        width=width,
        height=height,
        role="img",
    )
    return svg + "\n"
