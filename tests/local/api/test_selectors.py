from __future__ import annotations

from typing import Any

import pytest

from aksgpu.local import selectors
from aksgpu.local.kinds import get_kind
from aksgpu.local.status_error import StatusError


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("team=a", {"a"}),
        ("team==a", {"a"}),
        ("team!=a", {"b", "none"}),
        ("team in (a,b)", {"a", "b"}),
        ("team notin (a)", {"b", "none"}),
        ("team", {"a", "b"}),
        ("!team", {"none"}),
        ("team in (a, b),team!=b", {"a"}),
        ("gpus>1", {"b"}),
        ("gpus<2", {"a"}),
    ],
)
def test_label_selectors(text: str, chosen: set[str]) -> None:
    labels = {"a": {"team": "a", "gpus": "1"}, "b": {"team": "b", "gpus": "4"}, "none": {}}
    match = selectors.parse_labels(text)
    assert match is not None
    assert {name for name, each in labels.items() if match(each)} == chosen


@pytest.mark.parametrize(
    "text",
    ["a in b", "=a", "a in (b", "a,,b", "a=b,", "()", "-a", "a=b/c", "a in (b,-)", "!a/b/c", "a>b", "a<1.5", "a>"],
)
def test_invalid_label_selectors(text: str) -> None:
    with pytest.raises(StatusError) as raised:
        selectors.parse_labels(text)
    assert raised.value.code == 400


def test_label_selector_objects() -> None:
    selector = {"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]}
    assert selectors.labels_match(selector, {"a": "1", "b": ""})
    assert not selectors.labels_match(selector, {"a": "1"})
    assert selectors.labels_match({}, {})


def test_field_selectors() -> None:
    pods = get_kind("pods")
    pod: dict[str, Any] = {"metadata": {"name": "x"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}}
    match = selectors.parse_fields("spec.nodeName=n,status.phase!=Failed,spec.hostNetwork=false", pods)
    assert match is not None and match(pod)
    assert not match({**pod, "status": {"phase": "Failed"}})


def test_a_field_that_cannot_be_selected() -> None:
    with pytest.raises(StatusError) as raised:
        selectors.parse_fields("data.k=1", get_kind("configmaps"))
    only = 'only "metadata.name", "metadata.namespace"'
    assert raised.value.message == f'"data.k" is not a known field selector: {only}'
