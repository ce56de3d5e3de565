"""Read YAML with limits, so that a small text cannot use minutes of CPU time or all memory.

YAML can name a part of a document and repeat it by that name (an alias). A few lines of nested aliases can mean
millions of values. The limits here are checked on the stream of parser events, before any value is built.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import yaml

from aksgpu.errors import InvalidInput

__all__ = [
    "LOADER",
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_INTEGER",
    "MAX_VALUES",
    "MIN_INTEGER",
    "check_limits",
    "json_value",
    "load_all",
]

MAX_BYTES = 3 * 1024 * 1024
"""Bytes of a text. Kubernetes accepts no larger request body."""
MAX_DEPTH = 100
"""Maximum nesting depth."""
MAX_VALUES = 100_000
"""Keys and values of all documents of a text, with each alias counted as the values that it repeats."""
MIN_INTEGER = -(2**63)
"""Smallest integer that the Kubernetes API accepts."""
MAX_INTEGER = 2**63 - 1
"""Largest integer that the Kubernetes API accepts."""

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The fastest of PyYAML's safe loaders that is installed."""


_STRING = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class _ManifestLoader(LOADER):  # type: ignore[misc]  # the base class is chosen when the module is loaded
    """A safe loader that refuses a key that occurs twice, and keeps keys and dates as text."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in LOADER.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return the mapping of a node."""
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise InvalidInput(f"a key must be text, got a {key_node.id}{_place(key_node.start_mark)}")
            if key_node.value in seen:
                raise InvalidInput(f"the key {key_node.value!r} occurs twice{_place(key_node.start_mark)}")
            seen.add(key_node.value)
            if key_node.tag != _MERGE:
                key_node.tag = _STRING
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return found


def load_all(text: str | bytes) -> list[Any]:
    """Return the documents of a YAML text as JSON values. Empty documents are left out.

    Dates are strings, as for ``kubectl``. Keys are strings, as in JSON.

    Args:
        text: one or more documents. JSON is YAML too.

    Raises:
        InvalidInput: the text is not YAML, exceeds a limit, repeats a key, or holds a value that JSON does not have.
    """
    try:
        check_limits(text)
        documents = [each for each in yaml.load_all(text, _ManifestLoader) if each is not None]
    except InvalidInput:
        raise
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as wrong:
        # PyYAML raises ValueError and the like for scalars that it cannot convert, such as an integer of 5,000 digits.
        raise InvalidInput(" ".join(str(wrong).split())[:500]) from None
    return [json_value(document) for document in documents]


def check_limits(text: str | bytes, *, aliases: bool = True) -> None:
    """Check the size, the depth and the number of values of a YAML text, without building any of it.

    Args:
        text: one or more documents.
        aliases: False refuses aliases.

    Raises:
        InvalidInput: a limit is exceeded.
        yaml.YAMLError: the text is not YAML.
    """
    if len(text) > MAX_BYTES:
        raise InvalidInput(f"it is larger than {MAX_BYTES:,} bytes")
    counter = _Counter(aliases=aliases)
    for event in yaml.parse(text, LOADER):
        counter.add(event)
        if counter.depth > MAX_DEPTH or counter.count > MAX_VALUES:
            raise InvalidInput(f"more than {MAX_DEPTH} levels or {MAX_VALUES:,} keys and values are not supported")


class _OpenCollection:
    """A mapping or sequence whose end has not been read yet."""

    def __init__(self, anchor: str | None, count_before: int) -> None:
        self.anchor = anchor
        self.count_before = count_before
        self.height = 0
        """Levels of the deepest collection or alias inside it."""


class _Counter:
    """Counts the levels and values of a document as if its aliases were replaced by their values.

    Attributes:
        count: number of keys and values.
    """

    def __init__(self, *, aliases: bool) -> None:
        self.count = 0
        self._aliases = aliases
        self._open: list[_OpenCollection] = []
        self._counts: dict[str | None, int] = {}
        """Number of values by anchor."""
        self._heights: dict[str | None, int] = {}
        """Number of levels by anchor."""

    @property
    def depth(self) -> int:
        """Levels of the open collections and of the deepest alias in the innermost one."""
        return len(self._open) + (self._open[-1].height if self._open else 0)

    def add(self, event: yaml.Event) -> None:
        """Count a parser event."""
        if isinstance(event, yaml.AliasEvent):
            if not self._aliases:
                raise InvalidInput("aliases are not supported")
            self.count += self._counts.get(event.anchor, 1)
            self._raise_height(self._heights.get(event.anchor, 0))
        elif isinstance(event, yaml.ScalarEvent):
            self.count += 1
            self._record(event.anchor, count=1, height=0)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._open.append(_OpenCollection(event.anchor, self.count))
            self.count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = self._open.pop()
            height = closed.height + 1
            self._record(closed.anchor, count=self.count - closed.count_before, height=height)
            self._raise_height(height)

    def _record(self, anchor: str | None, *, count: int, height: int) -> None:
        if anchor is not None:
            self._counts[anchor] = count
            self._heights[anchor] = height

    def _raise_height(self, height: int) -> None:
        if self._open:
            self._open[-1].height = max(self._open[-1].height, height)


def json_value(value: Any) -> Any:
    """Return a copy of a value that JSON and the Kubernetes API can hold.

    Args:
        value: mappings, sequences, strings, numbers, booleans and None, nested. Numbers of other libraries such as
            NumPy are converted.

    Raises:
        InvalidInput: it contains any other type, contains itself, or exceeds a limit. The message names the field.
    """
    return _Copier().copy(value, "", 0)


class _Copier:
    def __init__(self) -> None:
        self._count = 0

    def copy(self, value: Any, path: str, depth: int) -> Any:
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_VALUES:
            raise InvalidInput(f"more than {MAX_DEPTH} levels or {MAX_VALUES:,} keys and values are not supported")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return _text(value, path)
        if isinstance(value, Mapping):
            return self._mapping(value, path, depth)
        if isinstance(value, list | tuple):
            return [self.copy(each, f"{path}[{index}]", depth + 1) for index, each in enumerate(value)]
        return _number(value, path)

    def _mapping(self, value: Mapping[Any, Any], path: str, depth: int) -> dict[str, Any]:
        copied: dict[str, Any] = {}
        for key, inner in value.items():
            name = _key(key, path)
            if name in copied:
                raise InvalidInput(f"the key {name!r} occurs twice{_inside(path)}")
            copied[name] = self.copy(inner, f"{path}.{name}" if path else name, depth + 1)
        return copied


def _key(key: Any, path: str) -> str:
    if isinstance(key, str):
        return _text(key, path)
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int):
        return str(key)
    raise InvalidInput(f"a key must be text, got {key!r:.60}{_inside(path)}")


def _text(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"text must be valid Unicode, got {text!a:.60}{_inside(path)}") from None
    return str(text)


def _number(value: Any, path: str) -> Any:
    if hasattr(value, "__index__"):
        whole = int(value.__index__())
        if not MIN_INTEGER <= whole <= MAX_INTEGER:
            raise InvalidInput(f"an integer must fit into 64 bits{_inside(path)}")
        return whole
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput(f"a number must be finite, got {value}{_inside(path)}")
        return float(value)
    raise InvalidInput(f"a value must be one that JSON has, got a {type(value).__name__}{_inside(path)}")


def _inside(path: str) -> str:
    return f" in {path}" if path else ""


def _place(mark: Any) -> str:
    return f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
