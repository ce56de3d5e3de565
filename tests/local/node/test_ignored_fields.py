"""Fields of a pod that have no effect: an event names them."""

from __future__ import annotations

from typing import Any

import pytest
from support.polling import wait_for_async

from aksgpu.local.node import ignored_fields

from .conftest import Lab

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
    ],
)
@pytest.mark.parametrize("group", ["containers", "initContainers"])
def test_fields_of_a_container(container: dict[str, Any], path: str, group: str) -> None:
    quiet = {"name": "quiet", "ports": [{"containerPort": 80}], "resources": {"limits": {"memory": "1Gi"}}}
    assert ignored_fields.find({group: [quiet, {"name": "main", **container}]}) == [f"spec.{group}{{main}}.{path}"]


async def test_an_event_names_them(lab: Lab) -> None:
    await lab.run("p", "true", container={"livenessProbe": {"exec": {"command": ["false"]}}})
    await lab.phase("p", "Succeeded")

    async def messages() -> list[str]:
        events, _ = await lab.objects.list("events", "default")
        return [event["message"] for event in events if event["reason"] == ignored_fields.REASON]

    found = await wait_for_async(messages, 60)
    assert found == ["The laptop AKS does not act on spec.containers{main}.livenessProbe. A real cluster does"]
