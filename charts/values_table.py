"""Writes the table of the chart's values into its README, from the comments in values.yaml.

The comment above a value is its documentation; nobody has to keep a second text in step.
Run by `make charts`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parent / "heliostat"
BEGIN = "<!-- values: begin -->"
END = "<!-- values: end -->"


class UndocumentedError(Exception):
    """A value without a comment above it."""


def leaf_values(values: str) -> Iterator[tuple[str, Any, str]]:
    """Yield path, default and documentation of each value in the text of a values.yaml.

    A group of values is not itself a value, unless it is empty or made of free keys, as resources
    are: its comment, which only such a group has, covers what is in it.
    Raises UndocumentedError.
    """
    root = yaml.compose(values, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise UndocumentedError("values.yaml holds no values")
    yield from _leaves(root, (), values.splitlines())


def _leaves(
    node: yaml.MappingNode, above: tuple[str, ...], lines: list[str]
) -> Iterator[tuple[str, Any, str]]:
    for key, value in node.value:
        path = (*above, key.value)
        comment = _comment_above(lines, key.start_mark.line)
        if comment:
            yield ".".join(path), _plain(value), comment
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from _leaves(value, path, lines)
        else:
            raise UndocumentedError(f"values.yaml: {'.'.join(path)} has no comment above it")


def _plain(node: yaml.Node) -> Any:
    return yaml.safe_load(yaml.serialize(node))


def _comment_above(lines: list[str], line: int) -> str:
    words: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        words.insert(0, lines[line].strip().removeprefix("#").strip())
    return " ".join(words)


def table(values: str) -> str:
    """Return the Markdown table of a values.yaml."""
    rows = ["| value | default | meaning |", "|---|---|---|"]
    for path, default, meaning in leaf_values(values):
        shown = "" if default in ("", [], {}, None) else f"`{_flow(default)}`"
        rows.append(f"| `{path}` | {shown} | {meaning} |")
    return "\n".join(rows) + "\n"


def _flow(default: Any) -> str:
    if isinstance(default, str):
        return default
    return json.dumps(default)


def with_table(readme: str, values: str) -> str:
    """Return the README with its table made from this values.yaml."""
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{table(values)}{END}{after}"


def main() -> None:
    """Write the README."""
    readme = CHART / "README.md"
    readme.write_text(with_table(readme.read_text(), (CHART / "values.yaml").read_text()))


if __name__ == "__main__":
    main()
