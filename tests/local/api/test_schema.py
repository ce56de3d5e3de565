from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from extract_schemas import extract, find_definitions

from aksgpu.local import api_data
from aksgpu.local.api import schema
from aksgpu.local.kinds import KINDS, get_kind

PAGE = Path(__file__).parents[3] / "docs" / "laptop.md"
FORMS = {"qualified-name", "annotation", *api_data.load("rules.yaml")["formats"]}
WORDS = {
    "enum",
    "minimum",
    "maximum",
    "format",
    "items",
    "propertyNames",
    "additionalProperties",
    "unique",
    "keyed",
    "forbidden",
    "maxBytes",
}


def decode(plural: str, obj: dict[str, Any]) -> tuple[dict[str, Any], schema.Decoder]:
    decoder = schema.Decoder()
    return decoder.decode(schema.schema_for(get_kind(plural)), obj), decoder


def test_every_kind_has_a_schema() -> None:
    missing = [kind.kind for kind in KINDS if kind.definition not in schema.definitions()]
    assert missing == [], "run python tests/extract_schemas.py"
    for kind in KINDS:
        described = schema.definitions()[kind.definition]["x-kubernetes-group-version-kind"]
        assert {"group": kind.group, "version": kind.version, "kind": kind.kind} in described


def test_administrators_of_a_namespace_may_read_every_kind_in_it() -> None:
    rules = api_data.load("rules.yaml")["initialObjects"]["clusterroles"]["admin"]["rules"]
    allowed = {(group, plural) for rule in rules for group in rule["apiGroups"] for plural in rule["resources"]}
    served = {(kind.group, kind.plural) for kind in KINDS if kind.namespaced}
    assert served - allowed == set(), "add the kind to the roles under `first` in rules.yaml"


def test_the_page_about_the_laptop_has_every_kind() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| Namespace, ")]
    (listed,) = (set(row.split("|")[1].strip().split(", ")) for row in rows)
    assert listed == {kind.kind for kind in KINDS}, "correct the table in docs/laptop.md"


def test_the_schemas_match_their_source() -> None:
    source = find_definitions()
    assert source is not None, "kubernetes-validate, of the extra `test`, is not installed"
    assert extract(json.loads(source.read_text())["$defs"]) == schema.definitions()


def test_rules_name_existing_fields() -> None:
    short: dict[str, list[dict[str, Any]]] = {}
    for name, described in schema.definitions().items():
        group, _, kind = name.split(".")[-3:]
        short.setdefault(kind, []).append(described)
        short.setdefault(f"{group}.{kind}", []).append(described)
    parts = {"zero", "pointers", "omitZero", "defaults", "required", "rules"}
    for name, row in api_data.load("rules.yaml")["types"].items():
        (described,) = short[name]
        assert (
            row.keys() <= parts and {field for part in row.values() for field in part} <= described["properties"].keys()
        )
        for rule in row.get("rules", {}).values():
            for inner in (rule, *(each for each in rule.values() if isinstance(each, dict))):
                assert inner.keys() <= WORDS and inner.get("format", "label") in FORMS


def test_all_unknown_fields_are_found() -> None:
    spec = {"containers": [{"name": "a", "foo": 1}], "gpuCount": 1}
    _, decoder = decode("jobs", {"spec": {"template": {"spec": spec}}, "bar": {}})
    assert decoder.unknown == ["spec.template.spec.containers[0].foo", "spec.template.spec.gpuCount", "bar"]


def test_fields_with_a_default_are_not_required() -> None:
    rules = [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]
    obj, decoder = decode("jobs", {"spec": {"template": {"spec": {}}, "podFailurePolicy": {"rules": rules}}})
    assert not [each for each in decoder.causes.found if "podFailurePolicy" in each["field"]]
    assert obj["spec"]["podFailurePolicy"]["rules"][0]["onPodConditions"][0]["status"] == "True"


@pytest.mark.parametrize(
    ("obj", "text"),
    [
        (
            {"spec": {"parallelism": "x"}},
            "json: cannot unmarshal string into Go struct field JobSpec.spec.parallelism of type int32",
        ),
        (
            {"spec": {"template": {"spec": {"containers": [{"env": [{"name": "x", "value": 1}]}]}}}},
            "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type "
            "string",
        ),
        (
            {"spec": {"template": {"spec": {"containers": {}}}}},
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type "
            "[]v1.Container",
        ),
        (
            {"spec": {"suspend": 1}},
            "json: cannot unmarshal number into Go struct field JobSpec.spec.suspend of type bool",
        ),
        ({"status": {"startTime": "today"}}, 'parsing time "today" as "2006-01-02T15:04:05Z07:00"'),
        ({"metadata": {"labels": {"a": 1}}}, "ObjectMeta.metadata.labels of type string"),
    ],
)
def test_texts_for_wrong_types(obj: dict[str, Any], text: str) -> None:
    with pytest.raises(schema.DecodeError) as raised:
        decode("jobs", obj)
    assert str(raised.value).startswith(text) or text in str(raised.value)


def test_quantities_become_canonical_and_times_utc() -> None:
    pod, _ = decode(
        "pods",
        {
            "spec": {"containers": [{"name": "a", "resources": {"limits": {"nvidia.com/gpu": 1, "memory": "1024Mi"}}}]},
            "status": {"startTime": "2026-01-01T02:00:00+02:00"},
        },
    )
    expected = {"nvidia.com/gpu": "1", "memory": "1Gi"}
    assert pod["spec"]["containers"][0]["resources"] == {"limits": expected, "requests": expected}
    assert pod["status"]["startTime"] == "2026-01-01T00:00:00Z"
    with pytest.raises(schema.DecodeError, match="quantities must match"):
        decode("pods", {"spec": {"containers": [{"resources": {"limits": {"cpu": "lots"}}}]}})


def test_empty_optional_fields_are_omitted_and_pointers_are_kept() -> None:
    pod, _ = decode(
        "pods",
        {
            "metadata": {"labels": {}, "annotations": None},
            "spec": {
                "containers": [{"name": "a", "command": [], "workingDir": "", "tty": False}],
                "nodeName": "",
                "hostNetwork": False,
                "automountServiceAccountToken": False,
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
        },
    )
    assert "labels" not in pod["metadata"] and "annotations" not in pod["metadata"]
    assert not {"nodeName", "hostNetwork"} & set(pod["spec"])
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["volumes"] == [{"name": "v", "emptyDir": {}}]
    assert not {"command", "workingDir", "tty"} & set(pod["spec"]["containers"][0])


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("host:5000/a", "Always"),
        ("host:5000/a:1", "IfNotPresent"),
        ("a@sha256:00", "IfNotPresent"),
    ],
)
def test_pull_policy_depends_on_the_tag(image: str, policy: str) -> None:
    pod, _ = decode("pods", {"spec": {"containers": [{"name": "a", "image": image}]}})
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_secrets_encode_string_data() -> None:
    secret, _ = decode("secrets", {"stringData": {"a": "b"}})
    assert secret["data"] == {"a": "Yg=="} and "stringData" not in secret and secret["type"] == "Opaque"
    with pytest.raises(schema.DecodeError, match="illegal base64 data at input byte 1"):
        decode("secrets", {"data": {"a": "Y!"}})


def test_depth_is_limited() -> None:
    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"f:x": deep}
    with pytest.raises(schema.DecodeError, match="max depth"):
        decode("configmaps", {"metadata": {"managedFields": [{"fieldsV1": deep}]}})
