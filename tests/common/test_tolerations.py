"""Tolerations against taints."""

from __future__ import annotations

from typing import Any

import pytest

from aksgpu.common.tolerations import matches, tolerates

TAINT = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}, True),
        ({"key": "sku", "value": "gpu"}, True),
        ({"key": "sku", "value": "cpu"}, False),
        ({"key": "sku"}, False),
        ({"key": "sku", "operator": "Exists"}, True),
        ({"key": "sku", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"operator": "Exists"}, True),
        ({"operator": "Exists", "effect": ""}, True),
        ({}, False),
        ({"key": "", "operator": "Equal", "value": "gpu"}, False),
    ],
)
def test_matches(toleration: dict[str, Any], expected: bool) -> None:
    assert matches(toleration, TAINT) is expected


def test_a_missing_value_equals_an_empty_one() -> None:
    assert matches({"key": "sku", "value": ""}, {"key": "sku", "effect": "NoSchedule"})
    assert matches({"key": "sku"}, {"key": "sku", "value": None, "effect": "NoSchedule"})


def test_tolerates_needs_one_match() -> None:
    assert tolerates([{"key": "other"}, {"operator": "Exists"}], TAINT)
    assert not tolerates([], TAINT)
