"""What a real cluster answered, and how to compare: the recordings, and bodies without what differs from run to run.

What is meant to differ is listed, with its why, in ``data/differences.toml``; ``docs/differences.md`` shows that list.
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

DATA = Path(__file__).with_name("data")
RECORDINGS = DATA / "kube-recordings"
Exchange = dict[str, Any]


def steps(name: str) -> list[dict[str, Any]]:
    """The steps of a recording."""
    return list(orjson.loads((RECORDINGS / name).read_bytes())["steps"])


def every_exchange() -> Iterator[Exchange]:
    """All exchanges of all recordings."""
    for path in sorted(RECORDINGS.glob("0*.json")):
        for step in steps(path.name):
            yield from step["exchanges"]


def raw(body: Any) -> bytes:
    """A recorded body's bytes."""
    return base64.b64decode(body["base64"]) if isinstance(body, dict) else str(body or "").encode()


def documents() -> Iterator[tuple[Exchange, dict[str, Any]]]:
    """All recorded JSON answers of one document."""
    for exchange in every_exchange():
        body = exchange.get("response_body")
        if isinstance(body, str):
            try:
                yield exchange, orjson.loads(body)
            except ValueError:
                continue


def objects() -> Iterator[dict[str, Any]]:
    """All recorded objects, those in lists included."""
    for _, document in documents():
        if document.get("kind", "").endswith("List") and "items" in document:
            kind, version = document["kind"].removesuffix("List"), document["apiVersion"]
            found = [{"kind": kind, "apiVersion": version, **item} for item in document["items"]]
        else:
            found = [document]
        found = [each for each in found if each.get("kind") != "PartialObjectMetadata"]
        yield from (each for each in found if {"uid", "resourceVersion"} <= each.get("metadata", {}).keys())


def tables() -> Iterator[tuple[str, dict[str, Any]]]:
    """All recorded tables with their resource's plural."""
    for exchange, document in documents():
        if document.get("kind") == "Table":
            parts = exchange["path"].partition("?")[0].split("/")
            yield next(p for p in reversed(parts) if p in PLURALS), document


PLURALS = ("nodes", "pods", "jobs", "daemonsets", "events", "configmaps")


# Comparing.

MEANT: list[dict[str, Any]] = tomllib.loads((DATA / "differences.toml").read_text())["meant"]
"""Each with ``what`` and ``why``, and what is left out for it: ``paths`` whose bodies are not compared, elements of
lists that are ``named`` so, events of some ``reasons``, ``fields``, or ``texts`` that stand for each other."""

_NOT_COMPARED = [re.compile(each) for row in MEANT for each in row.get("paths", ())]
_NAMED = [re.compile(each) for row in MEANT for each in row.get("named", ())]
_REASONS = {each for row in MEANT for each in row.get("reasons", ())}
_FIELDS = {each for row in MEANT for each in row.get("fields", ())}
_TEXTS = [(re.compile(each), f"<{row['texts'][0]}>") for row in MEANT for each in row.get("texts", ())]

_VOLATILE = {"uid", "resourceVersion", "continue", "controller-revision-hash"}
_AGE = re.compile(r"(\d+[smhdy]){1,2}|<invalid>")
_RUN = [
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<uid>"),
    (re.compile(r"(?<=[a-z0-9]-)[bcdfghjklmnpqrstvwxz2456789]{5}\b"), "<suffix>"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
    (re.compile(r"\b\d+\.\d+\.\d+\.\d+\b"), "<address>"),
    (re.compile(r"(?<=containerd://)[0-9a-f]{64}|(?<=sha256:)[0-9a-f]{64}"), "<id>"),
    (re.compile(r"\blocalhost\b|\baks-\w+-\d{8}-vmss\w{6}\b"), "<node>"),
    (re.compile(r"(?<=\.)[0-9a-f]{16}\b"), "<moment>"),
    *_TEXTS,
]
"""What is made up anew in each run."""


def normal(value: Any, key: str = "") -> Any:
    """A body without what differs from run to run, or is meant to differ."""
    if key in _VOLATILE and value is not None:
        return f"<{key}>"
    if isinstance(value, dict):
        kept = {_plain(k): normal(v, k) for k, v in value.items() if k not in _FIELDS}
        return {k: v for k, v in kept.items() if v != [] or k == "items"}
    if isinstance(value, list):
        found = [normal(each, key) for each in value if not _left_out(each)]
        return sorted(found, key=_order) if key in ("items", "rows", "managedFields") else found
    if not isinstance(value, str):
        return value
    return "<age>" if key == "cells" and _AGE.fullmatch(value) else _plain(value)


def _order(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _plain(text: str) -> str:
    for pattern, instead in _RUN:
        text = pattern.sub(instead, text)
    return text


def _left_out(each: Any) -> bool:
    if not isinstance(each, dict):
        return False
    each = each.get("object") or each
    name = str((each.get("metadata") or {}).get("name") or each.get("name") or "")
    return each.get("reason") in _REASONS or any(pattern.fullmatch(name) for pattern in _NAMED)


def bare(value: Any) -> Any:
    """A body without its empty and zero values, which protobuf does not carry."""
    if isinstance(value, dict):
        kept = {k: bare(v) for k, v in value.items()}
        return {k: v for k, v in kept.items() if v not in (None, {}, [], 0, "", False)}
    return [bare(each) for each in value] if isinstance(value, list) else value


def same(ours: Any, exchange: Exchange) -> bool:
    """Whether a body is the recorded one, but for what differs from run to run or is meant to."""
    wanted = wanted_body(exchange)
    if wanted is None:
        return True
    compare = bare if isinstance(exchange.get("response_body"), dict) else (lambda value: value)
    return bool(compare(normal(ours)) == compare(normal(wanted)))


def wanted_body(exchange: Exchange) -> Any:
    """The recorded body to compare with, or None."""
    body = exchange.get("response_body")
    if any(pattern.match(exchange["path"]) for pattern in _NOT_COMPARED):
        return None
    try:
        if isinstance(body, dict):
            return protobuf.decode(raw(body))
        return orjson.loads(body or "")
    except ValueError:
        return body if isinstance(body, str) and body else None
