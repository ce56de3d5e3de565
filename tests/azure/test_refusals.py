from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from aksgpu import errors
from aksgpu.azure import error_parsing, error_rules
from aksgpu.local.arm import arm_errors, reference_data

EXPECTED = yaml.safe_load((Path(__file__).parents[1] / "data" / "azure-refusals.yaml").read_text())


def sent_by_laptop(name: str, expected: dict[str, Any]) -> dict[str, Any]:
    error = arm_errors.refusal(name, **expected.get("values", {}))
    return {"name": f"laptop {name}", "status": error.status, "body": error.body(), **expected}


RULE = {"refusal", "return"}
"""The annotated names of a rule."""
LAPTOP = [sent_by_laptop(name, expected) for name, expected in EXPECTED["laptop"].items()]
REPORTED: list[dict[str, Any]] = EXPECTED["reported"]
TEXTS = [*LAPTOP, *REPORTED]
each_text = pytest.mark.parametrize("text", TEXTS, ids=[text["name"] for text in TEXTS])


def fold(body: Any) -> Any:
    """Replace newlines and repeated spaces by one space in every text of a body."""
    if isinstance(body, dict):
        return {key: fold(value) for key, value in body.items()}
    if isinstance(body, list):
        return [fold(value) for value in body]
    return " ".join(body.split()) if isinstance(body, str) else body


def check(error: errors.AzureError, text: dict[str, Any]) -> None:
    assert type(error) is getattr(errors, text["kind"])
    for name, value in text.get("facts", {}).items():
        expected = tuple(value) if isinstance(value, list) else value
        assert getattr(error, name) == expected, name
    assert text.get("hint", "") in error.hint


@each_text
def test_each_text_gives_its_class_its_attributes_and_a_hint(text: dict[str, Any]) -> None:
    error = error_parsing.recognise(text["body"], http_status=text["status"], what="node pool gpunp")
    check(error, text)
    assert str(error).startswith("node pool gpunp: ")
    assert error.http_status == text["status"]
    assert error.hint


@each_text
def test_each_text_is_read_the_same_when_its_lines_are_folded(text: dict[str, Any]) -> None:
    check(error_parsing.recognise(fold(text["body"]), http_status=text["status"]), text)


def test_every_text_of_the_laptop_is_checked() -> None:
    sections = reference_data.table("refusals")
    names = {name for section, rows in sections.items() if section != "faults" for name in rows}
    assert names == EXPECTED["laptop"].keys()


def test_no_reported_text_is_one_that_the_laptop_sends() -> None:
    def message(body: Any) -> str:
        inner = body.get("error", body) if isinstance(body, dict) else {}
        return str(inner.get("message", ""))

    templates = []
    for section in ("azure", "aks"):
        for row in reference_data.table("refusals")[section].values():
            literals = re.split(r"\{\w+\}", row[2])
            templates.append(re.compile(".*".join(map(re.escape, literals)), re.S))
    assert [
        text["name"]
        for text in REPORTED
        if not text.get("other_values") and any(template.fullmatch(message(text["body"])) for template in templates)
    ] == []


def test_every_rule_is_tried() -> None:
    rules = [rule for rule in vars(error_rules).values() if getattr(rule, "__annotations__", {}).keys() == RULE]
    assert sorted(rule.__name__ for rule in rules) == sorted(rule.__name__ for rule in error_rules.RULES)


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        ("BadRequest", "Subnet gpus is in use by the load balancer, and its route table is missing.", "AzureError"),
        ("InUseIpAddress", "The IP address 10.0.0.4 is in use.", "AzureError"),
        ("BadRequest", "The node resource group 'MC_a' already exists.", "AzureError"),
        ("BadRequest", "The node pool already exists in the plan, and is not a part of this quota.", "AzureError"),
        ("BadRequest", "Upgrading the subscription from Free Trial to Pay-As-You-Go is not allowed.", "AzureError"),
        ("BadRequest", "The maxPods of the pool is 30.", "AzureError"),
        ("AllocationFailed", "Allocation failed. The reservations of your capacity are kept.", "AllocationFailed"),
    ],
)
def test_a_near_miss_is_not_taken_for_a_refusal_about_pools_or_networks(code: str, message: str, kind: str) -> None:
    error = error_parsing.recognise({"code": code, "message": message}, http_status=400)
    assert type(error) is getattr(errors, kind)
    assert "reservation update" not in error.hint


def test_a_wrong_value_is_named_as_an_argument_of_the_library() -> None:
    text = "The value of parameter agentPoolProfile.gpuInstanceProfile is invalid. Error details: not for this size."
    error = error_parsing.recognise({"code": "InvalidParameter", "message": text}, http_status=400)
    assert "Correct the value of gpu_instance_profile, then" in error.hint


def test_every_class_below_azure_error_has_a_text() -> None:
    def below(kind: type[errors.AzureError]) -> set[str]:
        return {kind.__name__}.union(*(below(child) for child in kind.__subclasses__()))

    assert below(errors.AzureError) - {text["kind"] for text in TEXTS} == {
        "AzureUnreachable",
        "ApiServerRestricted",
    }


def test_a_long_text_is_cut() -> None:
    error = error_parsing.recognise({"code": "BadRequest", "message": "x" * 5000}, http_status=400)
    assert len(error.message) < 500


def test_a_text_with_braces_that_is_not_json_is_kept() -> None:
    error = error_parsing.recognise({"error": {"code": "Odd", "message": 'template {"a": is broken'}}, http_status=400)
    assert error.code == "Odd"
    assert "is broken" in error.message


def test_deeply_nested_errors_are_limited() -> None:
    body: dict[str, Any] = {"code": "Deep", "message": "deep"}
    for _ in range(50):
        body = {"error": body}
    assert error_parsing.find_refusals(body) == []
    assert isinstance(error_parsing.recognise(body, http_status=400), errors.AzureError)


def test_an_attribute_that_a_class_does_not_declare_is_refused() -> None:
    with pytest.raises(TypeError, match="nonsense"):
        errors.QuotaExceeded("", nonsense=1)  # type: ignore[call-arg]
