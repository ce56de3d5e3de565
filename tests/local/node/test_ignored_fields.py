"""Fields of a pod that have no effect: an event names them."""

from __future__ import annotations

from typing import Any

import pytest
from support.polling import wait_for_async

from aksgpu.local.api import schema
from aksgpu.local.control.fields_without_effect import REASON
from aksgpu.local.node import ignored_fields
from aksgpu.local.objects import Object

from .conftest import Lab

USED = {
    "PodSpec": {
        "activeDeadlineSeconds",
        "affinity",
        "containers",
        "dnsPolicy",  # names come from /etc/hosts with every policy
        "enableServiceLinks",  # true by default, so an event would be about every pod
        "ephemeralContainers",  # refused
        "hostAliases",
        "hostNetwork",
        "hostname",
        "initContainers",
        "nodeName",
        "nodeSelector",
        "overhead",
        "preemptionPolicy",
        "priority",
        "priorityClassName",
        "resourceClaims",  # refused
        "restartPolicy",
        "runtimeClassName",  # refused
        "schedulerName",  # an event of its own
        "schedulingGates",
        "serviceAccount",
        "serviceAccountName",
        "setHostnameAsFQDN",
        "subdomain",
        "terminationGracePeriodSeconds",
        "tolerations",
        "volumes",
    },
    "Container": {
        "args",
        "command",
        "env",
        "envFrom",
        "image",
        "imagePullPolicy",
        "name",
        "ports",
        "resources",
        "restartPolicy",
        "stdin",
        "stdinOnce",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "tty",
        "volumeMounts",
        "workingDir",
    },
}
"""The fields that have an effect."""
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


@pytest.mark.parametrize(
    ("spec", "paths"),
    [
        ({}, []),
        ({"securityContext": {}, "dnsPolicy": "ClusterFirst", "affinity": {"nodeAffinity": {}}}, []),
        ({"securityContext": {"runAsUser": 1}, "hostPID": True}, ["spec.hostPID", "spec.securityContext"]),
        ({"hostPID": False, "readinessGates": []}, []),
        ({"affinity": {"podAntiAffinity": {PREFERRED: [{}]}}}, ["spec.affinity.podAntiAffinity"]),
        ({"affinity": {"nodeAffinity": {PREFERRED: [{}]}}}, [f"spec.affinity.nodeAffinity.{PREFERRED}"]),
        ({"volumes": [{"name": "m", "emptyDir": {"medium": "Memory"}}]}, ["spec.volumes{m}.emptyDir.medium"]),
        ({"hostUsers": False, "os": {"name": "windows"}}, ["spec.hostUsers", "spec.os"]),
        ({"hostUsers": True, "os": {"name": "linux"}, "automountServiceAccountToken": False}, []),
        ({"resources": {"limits": {"cpu": "1"}}, "hostnameOverride": "a"}, ["spec.hostnameOverride", "spec.resources"]),
        (
            {"volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]},
            ["spec.volumes{t}.projected.serviceAccountToken"],
        ),
        ({"volumes": [{"name": "m", "emptyDir": {}}, {"name": "c", "configMap": {"name": "c"}}]}, []),
    ],
)
def test_fields_of_the_pod(spec: dict[str, Any], paths: list[str]) -> None:
    assert ignored_fields.find(spec) == paths


@pytest.mark.parametrize(
    ("container", "path"),
    [
        ({"livenessProbe": {"exec": {}}}, "livenessProbe"),
        ({"lifecycle": {"preStop": {}}}, "lifecycle"),
        ({"ports": [{"containerPort": 80}, {"containerPort": 81, "hostPort": 81}]}, "ports.hostPort"),
        ({"resources": {"limits": {"ephemeral-storage": "1Gi"}}}, "resources.limits.ephemeral-storage"),
        ({"resources": {"claims": [{"name": "gpu"}]}}, "resources.claims"),
        ({"restartPolicyRules": [{"action": "Restart"}]}, "restartPolicyRules"),
        ({"volumeMounts": [{"name": "v", "mountPropagation": "Bidirectional"}]}, "volumeMounts{v}.mountPropagation"),
        ({"volumeMounts": [{"name": "v", "recursiveReadOnly": "Enabled"}]}, "volumeMounts{v}.recursiveReadOnly"),
    ],
)
@pytest.mark.parametrize("group", ["containers", "initContainers"])
def test_fields_of_a_container(container: dict[str, Any], path: str, group: str) -> None:
    quiet = {
        "name": "quiet",
        "ports": [{"containerPort": 80}],
        "resources": {"limits": {"memory": "1Gi"}},
        "volumeMounts": [{"name": "v", "mountPropagation": "None"}],
    }
    assert ignored_fields.find({group: [quiet, {"name": "main", **container}]}) == [f"spec.{group}{{main}}.{path}"]


@pytest.mark.parametrize("definition", [*USED])
def test_every_field_has_an_effect_or_an_event(definition: str) -> None:
    """A field that a newer schema adds is in neither list."""
    fields = set(schema.definitions()[f"io.k8s.api.core.v1.{definition}"]["properties"])
    without_effect = {field for field in fields - USED[definition] if _is_found(definition, field)}
    assert fields - without_effect == USED[definition]


def _is_found(definition: str, field: str) -> bool:
    """Return whether an event names a field that has one of the usual values."""
    for value in ([{"name": "x"}], {"name": "x"}, {"required": [{}]}, False, "x"):
        if definition == "PodSpec":
            spec: dict[str, Any] = {field: value}
        else:
            spec = {"containers": [{"name": "main", field: value}]}
        try:
            found = ignored_fields.find(spec)
        except (AttributeError, KeyError, TypeError):  # a value of another type
            continue
        if any(f".{field}" in path for path in found):
            return True
    return False


async def test_a_variable_from_a_file_is_refused(lab: Lab) -> None:
    source = {"fileKeyRef": {"key": "RATE", "path": "settings.env", "volumeName": "files"}}
    env = [{"name": "RATE", "valueFrom": source}]
    await lab.run("p", "true", container={"env": env}, volumes=[{"name": "files", "emptyDir": {}}])

    def waiting(pod: Object) -> dict[str, Any]:
        statuses = pod.get("status", {}).get("containerStatuses") or [{"state": {}}]
        state: dict[str, Any] = statuses[0]["state"].get("waiting") or {}
        return state if state.get("reason") == "CreateContainerConfigError" else {}

    pod = await lab.until("p", waiting)
    assert waiting(pod)["message"] == "env RATE: the laptop AKS does not support fileKeyRef"


async def test_an_event_names_them(lab: Lab) -> None:
    await lab.run("p", "true", container={"livenessProbe": {"exec": {"command": ["false"]}}})
    await lab.phase("p", "Succeeded")

    async def messages() -> list[str]:
        events, _ = await lab.objects.list("events", "default")
        return [event["message"] for event in events if event["reason"] == REASON]

    found = await wait_for_async(messages, 60)
    assert found == ["The laptop AKS does not act on spec.containers{main}.livenessProbe. A real cluster does"]
