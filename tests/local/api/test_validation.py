from __future__ import annotations

from typing import Any

import pytest

from aksgpu.local.api.registry import Registry
from aksgpu.local.status import StatusError

Object = dict[str, Any]

INDEXED = {"completionMode": "Indexed", "completions": 2}


def policy(action: str = "FailJob", *values: int) -> Object:
    return {"rules": [{"action": action, "onExitCodes": {"operator": "In", "values": list(values or (1,))}}]}


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({**INDEXED, "parallelism": 100_001}, "must be less than or equal to 100000 when completion mode is Indexed"),
        ({"backoffLimitPerIndex": 1}, "requires indexed completion mode"),
        ({**INDEXED, "podFailurePolicy": policy("FailIndex")}, "requires the backoffLimitPerIndex to be set"),
        ({"podFailurePolicy": policy("FailJob", 0)}, "must not be 0 for the In operator"),
        ({"podFailurePolicy": policy("FailJob", 3, 3)}, "rules[0].onExitCodes.values[1]: Duplicate value: 3"),
        (
            {"podFailurePolicy": policy(), "podReplacementPolicy": "TerminatingOrFailed"},
            'Unsupported value: "TerminatingOrFailed": supported values: "Failed"',
        ),
        ({**INDEXED, "successPolicy": {"rules": [{"succeededCount": 1}]}}, "does not have success policies"),
    ],
)
async def test_jobs_that_cannot_be(registry: Registry, job: Object, spec: Object, text: str) -> None:
    job["spec"] |= spec
    with pytest.raises(StatusError) as raised:
        await registry.create("jobs", job, "default")
    assert raised.value.code == 422 and text in raised.value.message


async def test_scheduling_gates_can_only_go(registry: Registry, pod: Object) -> None:
    pod["spec"]["schedulingGates"] = [{"name": "a"}, {"name": "b"}]
    made = await registry.create("pods", pod, "default")
    assert [each["reason"] for each in made["status"]["conditions"]] == ["SchedulingGated"]
    fewer = await registry.update("pods", {**made, "spec": {**made["spec"], "schedulingGates": [{"name": "b"}]}})
    assert fewer["spec"]["schedulingGates"] == [{"name": "b"}]
    more = {**fewer["spec"], "schedulingGates": [{"name": "b"}, {"name": "c"}]}
    with pytest.raises(StatusError, match="found new scheduling gate 'c'"):
        await registry.update("pods", {**fewer, "spec": more})


@pytest.mark.parametrize("port", [-1, 0, 65536])
async def test_ports_have_16_bits(registry: Registry, pod: Object, port: int) -> None:
    pod["spec"]["containers"][0]["ports"] = [{"containerPort": port}]
    with pytest.raises(StatusError, match="must be between 1 and 65535, inclusive"):
        await registry.create("pods", pod, "default")


async def test_finalizers_belong_to_somebody(registry: Registry) -> None:
    given = {"metadata": {"name": "c", "finalizers": ["mine"]}}
    with pytest.raises(StatusError, match="neither a standard finalizer name nor is it fully qualified"):
        await registry.create("configmaps", given, "default")


async def test_a_deletion_says_one_thing_about_dependents(registry: Registry, job: Object) -> None:
    await registry.create("jobs", job, "default")
    wishes = {"orphanDependents": True, "propagationPolicy": "Background"}
    with pytest.raises(StatusError, match="orphanDependents and deletionPropagation cannot be both set"):
        await registry.remove("jobs", "train", "default", delete_options=wishes)
