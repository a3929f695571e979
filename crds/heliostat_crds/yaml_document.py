"""YAML documents that remember where each of their values stands in the file.

Stricter than YAML: a key may stand only once in a mapping, there are no merge keys, dates or binary
values, and nesting is bounded (the C parser would overflow the stack).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

MAX_DEPTH = 32
"""Levels of nesting; a pool needs six."""

_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float")}


class YamlError(ValueError):
    """The text is not YAML that a manifest may use; `line` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


class _Loader(yaml.CSafeLoader):
    """Knows null, booleans and numbers; every other plain value is text."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Leave merge keys as they are."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag in _PLAIN_TAGS]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.CSafeLoader.yaml_constructors.items()
    if tag is None or tag in _PLAIN_TAGS or tag.rpartition(":")[2] in ("str", "seq", "map")
}


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """One document: its plain data, and the nodes that tell the lines."""

    data: Any
    node: yaml.Node

    def line_of(self, path: Sequence[str | int]) -> int:
        """Give the line of the value at the path, or of what encloses the first missing part.

        A path that ends at a key of a mapping gives the key's line.
        """
        node, line = self.node, self.node.start_mark.line
        for part in path:
            step = _step(node, part)
            if step is None:
                break
            node, line = step
        return line + 1


def read_yaml(text: str) -> list[YamlDocument]:
    """Read all documents of a file; YamlError says what is wrong and where."""
    try:
        _check_depth(text)
        loader = _Loader(text)
        try:
            return list(_documents(loader))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(mark.line + 1 if mark else 1, _sentence(error)) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(line, f"character not allowed in YAML: {error.reason}") from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise YamlError(1, f"not valid YAML: {error}") from error


def _documents(loader: _Loader) -> Iterator[YamlDocument]:
    while loader.check_node():
        node = loader.get_node()
        if node is None:
            return
        _check_keys(node, set())
        try:
            yield YamlDocument(loader.construct_document(node), node)
        except ValueError as error:
            raise YamlError(node.start_mark.line + 1, f"not valid YAML: {error}") from error


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                mark = event.start_mark
                line = mark.line + 1 if mark else 1
                raise YamlError(line, f"nested too deeply; allowed: {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_keys(node: yaml.Node, visited: set[int]) -> None:
    if id(node) in visited:
        return
    visited.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item, visited)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise YamlError(line, "a key must be text")
            if key.value in lines:
                raise YamlError(
                    line, f'key "{key.value}" is already given in line {lines[key.value]}'
                )
            lines[key.value] = line
            _check_keys(value, visited)


def _step(node: yaml.Node, part: str | int) -> tuple[yaml.Node, int] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
        if part < len(node.value):
            item = node.value[part]
            return item, item.start_mark.line
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return value, key.start_mark.line
    return None


def _sentence(error: yaml.MarkedYAMLError) -> str:
    parts = [part for part in (error.context, error.problem) if part]
    return f"not valid YAML: {', '.join(parts)}"
