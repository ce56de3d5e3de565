"""Limits when YAML is read, and invalid manifests."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from aksgpu.common.yaml_loader import MAX_DEPTH, MAX_VALUES, check_limits, load_all
from aksgpu.errors import InvalidInput
from aksgpu.manifests.load import documents


def laughs(levels: int) -> str:
    """Return a YAML text whose nested aliases expand to 10 ** levels values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        aliases = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} [{aliases}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (laughs(9), "keys and values"),
        ("a: &a {k: v}\nb:\n  <<: [" + ", ".join(["*a"] * MAX_VALUES) + "]", "keys and values"),
        ("[" * 5000 + "]" * 5000, f"{MAX_DEPTH} levels|nesting depth"),
        ("a: &a [*a]", "levels|recursive|undefined"),
        ("x: [" + "1, " * (MAX_VALUES + 1) + "]", "keys and values"),
        ("x: " + "y" * (3 * 1024 * 1024), "larger than"),
        ("spec: {a: 1}\nspec: {b: 2}", "'spec' occurs twice in line 2"),
        ("{1: a, '1': b}", "'1' occurs twice"),
        ("? [a]\n: b", "a key must be text"),
        ("a: 99999999999999999999999", "64 bits in a"),
        ("a: " + "9" * 5000, "digits"),
        ("a: [.inf]", r"finite, got inf in a\[0\]"),
        ("a: .nan", "finite"),
        ("a: 1.0e+999", "finite"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: !mine b", "could not determine a constructor"),
        ("a: !!binary aGVsbG8=", "one that JSON has, got a bytes in a"),
        ("a: !!set {b}", "one that JSON has, got a set"),
        ("a: !!int x", "invalid literal"),
        ('a: "\\ud800"', "nicode"),
        ("a: [", "flow"),
    ],
    ids=range(21),
)
def test_yaml_beyond_the_limits_is_refused_before_it_is_built(text: str, words: str) -> None:
    began = time.thread_time()
    with pytest.raises(InvalidInput, match=words):
        load_all(text)
    assert time.thread_time() - began < 20, "it was built before it was refused"


def test_yaml_becomes_json_values() -> None:
    text = (
        "a: &a {b: 1}\nc: *a\nd: 2026-11-28\ne: 2026-11-28T10:00:00Z\n1: x\ntrue: y\nf: {<<: *a, b: 2}\n"
        "---\n---\n[1.5, null]"
    )
    first = {"a": {"b": 1}, "c": {"b": 1}, "d": "2026-11-28", "e": "2026-11-28T10:00:00Z", "1": "x", "true": "y"}
    assert load_all(text) == [{**first, "f": {"b": 2}}, [1.5, None]]
    assert load_all("") == []
    with pytest.raises(InvalidInput, match="aliases are not supported"):
        check_limits(text, aliases=False)


def test_limits_count_aliases_as_often_as_they_are_used() -> None:
    nested = "&a " + "[" * 60 + "]" * 60
    load_all(f"x: {nested}")
    with pytest.raises(InvalidInput, match="levels"):
        load_all(f"x: {nested}\ny: " + "[" * 60 + "*a" + "]" * 60)


class Loop(dict[str, Any]):
    def __init__(self) -> None:
        super().__init__(kind="Job")
        self["self"] = self


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (Loop(), "levels"),
        ({"kind": "Job", "a": b"x"}, "got a bytes in a"),
        ({"kind": "Job", "a": {"b": {1, 2}}}, r"got a set in a\.b"),
        ({"kind": "Job", "a": "\ud800"}, "valid Unicode"),
        ({"kind": "Job", "\udfff": 1}, "valid Unicode"),
        ({"kind": "Job", (1, 2): 1}, "a key must be text"),
        ({"kind": "Job", 1: 1, "1": 2}, "occurs twice"),
        ({"kind": "Job", "a": float("nan")}, "finite"),
        ({"kind": "Job", "a": 2**64}, "64 bits"),
        ({"kind": "List"}, "`items` of a List"),
        ({"kind": "List", "items": [5]}, "got int"),
        ("a: \ud800\nb: 1", "cannot|not YAML"),
        ("x" * 5000, "cannot read the manifest"),
        ("x" * 5000 + ":", "not YAML"),
        ("a\0b", "not a file name"),
        ("~no-such-user-here/job.yaml", "not a file name|cannot read"),
        ("/", "cannot read the manifest '/': Is a directory"),
        ("- just\n- text", "must hold Kubernetes objects, got list"),
        ("42\n", "must hold Kubernetes objects, got int"),
        (set(), "`manifest` must be a dict, a list of dicts, YAML text or a path, got set"),
    ],
    ids=range(20),
)
def test_invalid_manifests(manifest: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as refused:
        documents(manifest)
    assert refused.value.hint


def test_a_file_that_is_too_large_or_is_not_text(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes("é".encode() * (2 * 1024 * 1024))
    with pytest.raises(InvalidInput, match="larger than"):
        documents(large)
    large.write_bytes(b"a: \xff\xfe")
    with pytest.raises(InvalidInput, match="not text in UTF-8"):
        documents(large)


def test_numbers_of_other_libraries_are_converted() -> None:
    import numpy as np

    (obj,) = documents({"kind": "Job", "a": np.int64(3), "b": (np.float64(0.5),)})
    assert obj == {"kind": "Job", "a": 3, "b": [0.5]}
    assert [type(obj["a"]), type(obj["b"][0])] == [int, float]
