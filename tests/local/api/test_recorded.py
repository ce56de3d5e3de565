"""The registry's responses to writes, compared with those of a real API server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from aksgpu.local.api import field_sets, schema
from aksgpu.local.api.registry import Registry, WriteOptions
from aksgpu.local.api.store import Entry
from aksgpu.local.kinds import KINDS, Kind, find_kind
from aksgpu.local.status_error import StatusError

RECORDINGS = Path(__file__).parents[2] / "data" / "kube-recordings"
_PATH = re.compile(
    r"(?:/api/(?P<core>v1)|/apis/(?P<group>[^/]+)/(?P<version>[^/]+))(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?"
)
_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_GENERATED = re.compile(r"gen-[a-z0-9]{5}")
_GO_DUMP = re.compile(r"Invalid value: (core\.PodTemplateSpec)?\{.*\}: field is immutable", re.DOTALL)


def exchanges(scenario: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for step in json.loads((RECORDINGS / f"{scenario}.json").read_text())["steps"]:
        for exchange in step["exchanges"]:
            if exchange["method"] != "GET" and isinstance(exchange["request_body"], str):
                yield step["command"], exchange


def plain(value: Any) -> Any:
    """Return a value without what differs from run to run, and without one intended difference.

    The real server prints an immutable field's value as Go source with memory addresses, the laptop as JSON.
    """
    if isinstance(value, dict):
        return {_UID.sub("UID", key): plain(each) for key, each in value.items() if key != "resourceVersion"}
    if isinstance(value, list):
        # Entries of managedFields are sorted by time.
        managed = bool(value) and isinstance(value[0], dict) and "fieldsType" in value[0]
        return [plain(each) for each in (sorted(value, key=lambda each: str(each["manager"])) if managed else value)]
    if isinstance(value, str):
        for pattern, name in ((_UID, "UID"), (_TIME, "TIME"), (_GENERATED, "GENERATED")):
            value = pattern.sub(name, value)
        return _GO_DUMP.sub("Invalid value: VALUE: field is immutable", value)
    return value


async def answer(registry: Registry, exchange: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    url = urlsplit(exchange["path"])
    query = {key: values[0] for key, values in parse_qs(url.query).items()}
    match = _PATH.match(url.path)
    assert match is not None
    kind = find_kind(match["group"] or "", match["core"] or match["version"], match["plural"])
    assert kind is not None
    options = WriteOptions(
        manager=query.get("fieldManager", "curl"),
        field_validation=query.get("fieldValidation", "Warn"),
        dry_run="dryRun" in query,
        force=query.get("force") == "true",
    )
    body = json.loads(exchange["request_body"])
    place = (match["name"], match["namespace"])
    try:
        if exchange["method"] == "POST":
            return 201, (await registry.write("create", kind.plural, body, None, place[1], options=options))[0].obj
        if exchange["method"] == "PUT":
            return 200, (await registry.write("update", kind.plural, body, *place, options=options))[0].obj
        if exchange["method"] == "DELETE":
            entry, gone = await registry.write("delete", kind.plural, body, *place, options=options)
            assert gone
            return 200, _success(kind, entry)
        content_type = exchange["request_headers"]["content-type"]
        entry, created = await registry.write(
            "patch", kind.plural, body, *place, content_type=content_type, options=options
        )
        return 201 if created else 200, entry.obj
    except StatusError as error:
        return error.code, error.status


def _success(kind: Kind, entry: Entry) -> dict[str, Any]:
    """Return the HTTP response to a deletion."""
    metadata = entry.obj["metadata"]
    group = {"group": kind.group} if kind.group else {}
    details = {"name": metadata["name"], **group, "kind": kind.plural, "uid": metadata["uid"]}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


async def _controllers(registry: Registry, command: str) -> None:
    """Set the status that the controllers of the real cluster had set."""
    if command == "kubectl apply -f manifests/samples-tf-mnist-demo.yaml":
        recorded = json.loads((RECORDINGS / "01-tutorial.json").read_text())
        step = next(each for each in recorded["steps"] if "-o yaml" in each["command"])
        status = json.loads(step["exchanges"][-1]["response_body"])["status"]
        patch = {"status": status}
        client = registry.with_manager("kube-controller-manager")
        await client.patch("jobs", "samples-tf-mnist-demo", patch, "default", subresource="status")


@pytest.mark.parametrize("scenario", ["01-tutorial", "02-errors", "04-patch-and-apply", "05-job-life"])
async def test_writes_return_the_recorded_objects(registry: Registry, scenario: str) -> None:
    compared = 0
    for command, exchange in exchanges(scenario):
        if not exchange["request_body"].startswith(("{", "[")) or exchange["request_body"] == "{not json":
            continue  # These requests do not reach the registry.
        if exchange["status"] == 415:
            continue  # Neither do malformed patches.
        status, body = await answer(registry, exchange)
        assert status == exchange["status"], command
        assert plain(body) == plain(json.loads(exchange["response_body"])), command
        if exchange["method"] == "POST":
            await _controllers(registry, command)
        compared += 1
    assert compared >= 4


async def test_a_pod_of_a_job_is_completed_as_recorded(registry: Registry) -> None:
    recorded = json.loads((RECORDINGS / "05-job-life.json").read_text())
    step = next(each for each in recorded["steps"] if each["command"] == "kubectl get pods -l app=sweep -o json")
    body = next(each["response_body"] for each in step["exchanges"] if "pods?" in each["path"])
    real = json.loads(body)["items"][0]
    spec = json.loads(json.dumps(real["spec"]))
    # The laptop has no service account tokens, so it mounts none.
    del spec["volumes"], spec["containers"][0]["volumeMounts"]
    sent = {
        "metadata": {
            key: real["metadata"][key] for key in ("generateName", "labels", "ownerReferences", "annotations")
        },
        "spec": json.loads(json.dumps({key: spec[key] for key in ("containers", "restartPolicy", "hostname")})),
    }
    for default in ("imagePullPolicy", "resources", "terminationMessagePath", "terminationMessagePolicy"):
        del sent["spec"]["containers"][0][default]
    created = await registry.with_manager("kube-controller-manager").create("pods", sent, "default")
    del spec["nodeName"]
    assert created["spec"] == spec
    assert created["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    assert plain(created["metadata"]["managedFields"][0]) == plain(real["metadata"]["managedFields"][0])


def recorded_objects() -> Iterator[tuple[Kind, dict[str, Any]]]:
    """Yield every recorded object of a served kind: alone, in lists, in tables and in watches."""
    kinds = {(kind.api_version, kind.kind): kind for kind in KINDS}

    def inside(value: Any) -> Iterator[dict[str, Any]]:
        if not isinstance(value, dict):
            return
        if value.get("kind", "").endswith("List"):
            for item in value["items"]:
                yield {"kind": value["kind"].removesuffix("List"), "apiVersion": value["apiVersion"], **item}
        elif "rows" in value:
            yield from (row["object"] for row in value["rows"])
        else:
            yield value.get("object", value) if "type" in value else value

    for path in sorted(RECORDINGS.glob("*.json")):
        for step in json.loads(path.read_text())["steps"]:
            for exchange in step["exchanges"]:
                body = exchange.get("response_body")
                if not isinstance(body, str) or not body.startswith("{"):
                    continue
                for document in [body] if body.startswith("{\n") else body.splitlines():
                    for obj in inside(json.loads(document)):
                        kind = kinds.get((str(obj.get("apiVersion")), str(obj.get("kind"))))
                        if kind is not None:
                            yield kind, obj


def test_recorded_objects_decode_to_themselves() -> None:
    seen: set[str] = set()
    for kind, obj in recorded_objects():
        decoder = schema.Decoder()
        assert decoder.decode(schema.schema_for(kind), obj) == obj
        assert not decoder.unknown and not decoder.causes.found
        for entry in obj["metadata"].get("managedFields", ()):
            assert field_sets.dump(field_sets.load(entry["fieldsV1"])) == entry["fieldsV1"]
        seen.add(kind.kind)
    assert seen >= {"ConfigMap", "DaemonSet", "Event", "Job", "Namespace", "Node", "Pod", "RoleBinding"}
