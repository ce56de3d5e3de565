from __future__ import annotations

from typing import Any

import pytest

from aksgpu.local.api import schema
from aksgpu.local.api.patch import merge_patch, strategic_patch
from aksgpu.local.kinds import get_kind
from aksgpu.local.status_error import StatusError

PODS = schema.schema_for(get_kind("pods"))


def patched(containers: list[Any], patch: dict[str, Any]) -> Any:
    return strategic_patch(PODS, {"spec": {"containers": containers}}, {"spec": patch})["spec"].get("containers")


def test_merge_patch() -> None:
    assert merge_patch({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": None, "e": {"f": None}}, "d": [2]}) == {
        "a": {"c": 2, "e": {}},
        "d": [2],
    }


def test_items_are_merged_by_key() -> None:
    old = [{"name": "a", "image": "x", "env": [{"name": "E", "value": "1"}]}, {"name": "b", "image": "y"}]
    new = patched(
        old, {"containers": [{"name": "a", "env": [{"name": "F", "value": "2"}]}, {"name": "c", "image": "z"}]}
    )
    assert [each["name"] for each in new] == ["a", "b", "c"]
    assert new[0] == {
        "name": "a",
        "image": "x",
        "env": [{"name": "E", "value": "1"}, {"name": "F", "value": "2"}],
    }
    assert old[0]["env"] == [{"name": "E", "value": "1"}]


def test_directives() -> None:
    old = [{"name": "a"}, {"name": "b"}]
    assert patched(old, {"containers": [{"name": "a", "$patch": "delete"}]}) == [{"name": "b"}]
    anew = [{"name": "a", "$patch": "delete"}, {"name": "a", "image": "x"}]
    assert patched(old, {"containers": anew}) == [{"name": "b"}, {"name": "a", "image": "x"}]
    assert patched(old, {"containers": [{"$patch": "replace"}, {"name": "c"}]}) == [{"name": "c"}]
    assert patched(old, {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}) == [
        {"name": "b"},
        {"name": "a"},
    ]
    assert patched(old, {"$retainKeys": ["nodeName"]}) is None
    assert strategic_patch(PODS, {"spec": {"a": 1}}, {"spec": {"$patch": "replace", "b": 2}}) == {"spec": {"b": 2}}
    finalizers = {"metadata": {"finalizers": ["a/a", "b/b"]}}
    removed = strategic_patch(PODS, finalizers, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/a"]}})
    assert removed["metadata"]["finalizers"] == ["b/b"]
    added = strategic_patch(PODS, finalizers, {"metadata": {"finalizers": ["c/c", "a/a"]}})
    assert added["metadata"]["finalizers"] == ["a/a", "b/b", "c/c"]


def test_atomic_lists_are_replaced() -> None:
    old = {"spec": {"tolerations": [{"key": "a"}]}}
    new = strategic_patch(PODS, old, {"spec": {"tolerations": [{"key": "b"}]}})
    assert new["spec"]["tolerations"] == [{"key": "b"}]


@pytest.mark.parametrize(
    "patch",
    [
        {"containers": [{"image": "x"}]},
        {"containers": [{"name": "a", "env": [{"value": "1"}]}]},
        {"$patch": "explode"},
    ],
)
def test_invalid_patches_are_refused(patch: dict[str, Any]) -> None:
    with pytest.raises(StatusError) as raised:
        patched([{"name": "a"}], patch)
    assert raised.value.code == 400
