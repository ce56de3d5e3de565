"""The recordings, as objects."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

RECORDINGS = Path(__file__).parents[2] / "data" / "kube-recordings"
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
