"""Recordings of a real cluster, and comparisons with them.

Differences that are intended are listed with their reasons in ``data/differences.toml``. ``docs/differences.md`` shows
that list.
"""

from __future__ import annotations

import base64
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from aksgpu.local.api import protobuf

DATA = Path(__file__).parents[1] / "data"
RECORDINGS = DATA / "kube-recordings"
PLURALS = ("nodes", "pods", "jobs", "daemonsets", "events", "configmaps")
"""Resources of which there are recorded tables."""

Exchange = dict[str, Any]
"""One recorded request and its response."""


def steps(name: str) -> list[dict[str, Any]]:
    """Return the steps of a recording."""
    return list(orjson.loads((RECORDINGS / name).read_bytes())["steps"])


def every_exchange() -> Iterator[Exchange]:
    """Yield all exchanges of all recordings."""
    for path in sorted(RECORDINGS.glob("0*.json")):
        for step in steps(path.name):
            yield from step["exchanges"]


def body_bytes(body: Any) -> bytes:
    """Return a recorded body as bytes."""
    if isinstance(body, dict):
        return base64.b64decode(body["base64"])
    return str(body or "").encode()


def documents() -> Iterator[tuple[Exchange, dict[str, Any]]]:
    """Yield all recorded JSON responses that are a single document."""
    for exchange in every_exchange():
        body = exchange.get("response_body")
        if isinstance(body, str):
            try:
                document = orjson.loads(body)
            except ValueError:
                continue
            yield exchange, document


def objects() -> Iterator[dict[str, Any]]:
    """Yield all recorded objects, including those in lists."""
    for _, document in documents():
        found = [document]
        if document.get("kind", "").endswith("List") and "items" in document:
            kind = document["kind"].removesuffix("List")
            found = [{"kind": kind, "apiVersion": document["apiVersion"], **item} for item in document["items"]]
        for obj in found:
            is_stored = {"uid", "resourceVersion"} <= obj.get("metadata", {}).keys()
            if is_stored and obj.get("kind") != "PartialObjectMetadata":
                yield obj


def tables() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all recorded tables with the plural of their resource."""
    for exchange, document in documents():
        if document.get("kind") == "Table":
            parts = exchange["path"].partition("?")[0].split("/")
            yield next(part for part in reversed(parts) if part in PLURALS), document


# Comparison

INTENDED: list[dict[str, Any]] = tomllib.loads((DATA / "differences.toml").read_text())["meant"]
"""Intended differences.

Each has ``what`` and ``why``, and what it excludes from the comparison: ``paths`` whose bodies are not compared,
``named`` elements of lists, events with certain ``reasons``, ``fields``, or ``texts`` that count as equal.
"""

_EXCLUDED_PATHS = [re.compile(each) for row in INTENDED for each in row.get("paths", ())]
_EXCLUDED_NAMES = [re.compile(each) for row in INTENDED for each in row.get("named", ())]
_EXCLUDED_REASONS = {each for row in INTENDED for each in row.get("reasons", ())}
_EXCLUDED_FIELDS = {each for row in INTENDED for each in row.get("fields", ())}
_EQUAL_TEXTS = [(re.compile(each), f"<{row['texts'][0]}>") for row in INTENDED for each in row.get("texts", ())]

_VOLATILE_FIELDS = {"uid", "resourceVersion", "continue", "controller-revision-hash"}
_AGE = re.compile(r"(\d+[smhdy]){1,2}|<invalid>")
_VOLATILE_TEXTS = [
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<uid>"),
    (re.compile(r"(?<=[a-z0-9]-)[bcdfghjklmnpqrstvwxz2456789]{5}\b"), "<suffix>"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
    (re.compile(r"\b\d+\.\d+\.\d+\.\d+\b"), "<address>"),
    (re.compile(r"(?<=containerd://)[0-9a-f]{64}|(?<=sha256:)[0-9a-f]{64}"), "<id>"),
    (re.compile(r"\blocalhost\b|\baks-\w+-\d{8}-vmss\w{6}\b"), "<node>"),
    (re.compile(r"(?<=\.)[0-9a-f]{16}\b"), "<moment>"),
    *_EQUAL_TEXTS,
]
"""Texts that differ from run to run."""


def normalize(value: Any, key: str = "") -> Any:
    """Return a body without what differs from run to run and without intended differences."""
    if key in _VOLATILE_FIELDS and value is not None:
        return f"<{key}>"
    if isinstance(value, dict):
        fields = {
            _normalize_text(name): normalize(each, name) for name, each in value.items() if name not in _EXCLUDED_FIELDS
        }
        return {name: each for name, each in fields.items() if each != [] or name == "items"}
    if isinstance(value, list):
        items = [normalize(each, key) for each in value if not _is_excluded(each)]
        return sorted(items, key=_sort_key) if key in ("items", "rows", "managedFields") else items
    if not isinstance(value, str):
        return value
    return "<age>" if key == "cells" and _AGE.fullmatch(value) else _normalize_text(value)


def _sort_key(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _normalize_text(text: str) -> str:
    for pattern, replacement in _VOLATILE_TEXTS:
        text = pattern.sub(replacement, text)
    return text


def _is_excluded(item: Any) -> bool:
    if not isinstance(item, dict):
        return False
    item = item.get("object") or item
    name = str((item.get("metadata") or {}).get("name") or item.get("name") or "")
    return item.get("reason") in _EXCLUDED_REASONS or any(pattern.fullmatch(name) for pattern in _EXCLUDED_NAMES)


def without_empty(value: Any) -> Any:
    """Return a body without its empty and zero values, which protobuf does not contain."""
    if isinstance(value, dict):
        fields = {name: without_empty(each) for name, each in value.items()}
        return {name: each for name, each in fields.items() if each not in (None, {}, [], 0, "", False)}
    if isinstance(value, list):
        return [without_empty(each) for each in value]
    return value


def matches_recording(body: Any, exchange: Exchange) -> bool:
    """Return whether a body equals the recorded one, apart from volatile and intended differences."""
    expected = recorded_body(exchange)
    if expected is None:
        return True
    if isinstance(exchange.get("response_body"), dict):  # Protobuf.
        return bool(without_empty(normalize(body)) == without_empty(normalize(expected)))
    return bool(normalize(body) == normalize(expected))


def recorded_body(exchange: Exchange) -> Any:
    """Return the recorded body to compare with, or None if it is not compared."""
    body = exchange.get("response_body")
    if any(pattern.match(exchange["path"]) for pattern in _EXCLUDED_PATHS):
        return None
    try:
        if isinstance(body, dict):
            return protobuf.decode(body_bytes(body))
        return orjson.loads(body or "")
    except ValueError:
        return body if isinstance(body, str) and body else None
