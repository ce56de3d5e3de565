from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from aksgpu import errors
from aksgpu._azure import refusals

TEXTS = yaml.safe_load((Path(__file__).parents[1] / "data" / "azure-refusals.yaml").read_text())


@pytest.mark.parametrize("text", TEXTS, ids=[text["name"] for text in TEXTS])
def test_each_text_gives_its_class_its_numbers_and_an_action(text: dict[str, Any]) -> None:
    error = refusals.recognise(text["body"], status=text["status"], what="node pool gpunp")
    assert type(error) is getattr(errors, text["kind"])
    for name, value in text["facts"].items():
        wanted = tuple(value) if isinstance(value, list) else value
        assert getattr(error, name) == wanted, name
    assert text["hint"] in error.hint
    assert str(error).startswith("node pool gpunp: ")
    assert error.status == text["status"]
    assert error.hint


def test_every_class_below_azure_error_has_a_text() -> None:
    def below(kind: type[errors.AzureError]) -> set[str]:
        return {kind.__name__}.union(*(below(child) for child in kind.__subclasses__()))

    assert below(errors.AzureError) - {text["kind"] for text in TEXTS} == {
        "AzureUnreachable",
        "ApiServerRestricted",
    }


def test_a_long_text_is_cut() -> None:
    error = refusals.recognise({"code": "BadRequest", "message": "x" * 5000}, status=400)
    assert len(error.message) < 500


def test_a_text_with_braces_that_are_no_json_is_read_as_it_is() -> None:
    error = refusals.recognise({"error": {"code": "Odd", "message": 'template {"a": is broken'}}, status=400)
    assert error.code == "Odd"
    assert "is broken" in error.message


def test_endless_nesting_ends() -> None:
    body: dict[str, Any] = {"code": "Deep", "message": "deep"}
    for _ in range(50):
        body = {"error": body}
    assert refusals.said(body) == []
    assert isinstance(refusals.recognise(body, status=400), errors.AzureError)


def test_an_attribute_that_a_class_does_not_declare_is_refused() -> None:
    with pytest.raises(TypeError, match="nonsense"):
        errors.QuotaExceeded("", nonsense=1)
