"""Keys that occur twice in a JSON object are found, whatever the texts contain and however the JSON is written."""

from __future__ import annotations

import json
import random
from typing import Any

import orjson

from aksgpu.local.api.request_bodies import duplicate_fields

KEYS = ["a", "b", 'x"', "\\", '":', "é", ""]
TEXTS = ["", '":', '" : ', '\\":', "a", '{"a": 1, "a": 2}']


def write(chooser: random.Random, depth: int) -> str:
    """Return the text of a random JSON value, with random space and keys that may repeat."""
    kind = chooser.choice(["object", "list", "text", "number"]) if depth else "object"
    space = chooser.choice(["", " ", "\n\t"])
    if kind == "text":
        return json.dumps(chooser.choice(TEXTS), ensure_ascii=chooser.random() < 0.5)
    if kind == "number" or depth > 3:
        return "1"
    parts = [write(chooser, depth + 1) for _ in range(chooser.randint(0, 3))]
    if kind == "list":
        return f"[{space}{','.join(parts)}]"
    keys = [json.dumps(chooser.choice(KEYS)) for _ in parts]
    fields = [f"{key}{space}:{space}{part}" for key, part in zip(keys, parts, strict=True)]
    return "{" + f"{space},".join(fields) + "}"


def repeated(text: str) -> list[str]:
    """Return the messages about keys that occur more than once."""
    found: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> None:
        keys = [key for key, _ in items]
        found.extend(f'duplicate field "{key}"' for key in dict.fromkeys(keys) if keys.count(key) > 1)

    json.loads(text, object_pairs_hook=pairs)
    return found


def test_random_objects() -> None:
    chooser = random.Random(7)
    with_duplicates = 0
    for _ in range(3000):
        text = write(chooser, 0)
        expected = repeated(text)
        with_duplicates += bool(expected)
        assert duplicate_fields(text.encode(), orjson.loads(text)) == expected
    assert 300 < with_duplicates < 2700
