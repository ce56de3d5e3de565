from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from aksgpu.local.api.registry import Registry
from aksgpu.local.api.table_cells import pod_status
from aksgpu.local.status_error import StatusError

Object = dict[str, Any]

INDEXED = {"completionMode": "Indexed", "completions": 3}
LIMITED = {"backoffLimitPerIndex": 1}
MANY = {"completions": 100_001}


def owner(name: str) -> Object:
    return {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": name, "controller": True}


def mount(**more: str) -> Object:
    return {"volumeMounts": [{"name": "v", "mountPath": "/v", **more}]}


def policy(action: str = "FailJob", *values: int) -> Object:
    return {"rules": [{"action": action, "onExitCodes": {"operator": "In", "values": list(values or (1,))}}]}


def success(**rule: Any) -> Object:
    return {"rules": [rule]}


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({**INDEXED, "parallelism": 100_001}, "must be less than or equal to 100000 when completion mode is Indexed"),
        ({**INDEXED, "parallelism": 1, "maxFailedIndexes": 1}, "backoffLimitPerIndex: Required value: when maxFailed"),
        ({"backoffLimitPerIndex": 1}, "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"),
        ({**INDEXED, **LIMITED, "maxFailedIndexes": 4}, "Invalid value: 4: must be less than or equal to completions"),
        ({**INDEXED, **LIMITED, "backoffLimitPerIndex": -1}, "Invalid value: -1: must be greater than or equal to 0"),
        (
            {**INDEXED, **LIMITED, **MANY},
            "maxFailedIndexes: Required value: must be specified when completions is above",
        ),
        (
            {**INDEXED, **LIMITED, **MANY, "parallelism": 10_001, "maxFailedIndexes": 1},
            "must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per ind",
        ),
        ({"podFailurePolicy": policy("Retry")}, 'supported values: "Count", "FailIndex", "FailJob", "Ignore"'),
        (
            {"podFailurePolicy": policy("")},
            'action: Required value: valid values: ["Count" "FailIndex" "FailJob" "Ignore"]',
        ),
        ({"podFailurePolicy": policy("FailIndex")}, '"FailIndex": requires the backoffLimitPerIndex to be set'),
        ({"podFailurePolicy": policy("FailJob", 3, 3)}, "onExitCodes.values[1]: Duplicate value: 3"),
        (
            {"podFailurePolicy": policy("FailJob", 3, 2)},
            "rules[0].onExitCodes.values: Invalid value: [3,2]: must be ordered",
        ),
        (
            {"podFailurePolicy": {"rules": [{"action": "Count", "onExitCodes": {"operator": "In"}}]}},
            "values: Invalid value: null: at least one value is required",
        ),
        (
            {"podFailurePolicy": {"rules": [{"action": "Count", "onExitCodes": {"operator": "", "values": [1]}}]}},
            'operator: Required value: valid values: ["In" "NotIn"]',
        ),
        (
            {"podFailurePolicy": {"rules": [{"action": "Count"}]}},
            "rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
        ),
        (
            {
                "podFailurePolicy": {
                    "rules": [{"action": "Ignore", "onPodConditions": [{"type": "A", "status": "Yes"}]}]
                }
            },
            'status: Unsupported value: "Yes": supported values: "False", "True", "Unknown"',
        ),
        (
            {"podFailurePolicy": {"rules": policy()["rules"] * 21}},
            "spec.podFailurePolicy.rules: Too many: 21: must have at most 20 items",
        ),
        (
            {"podFailurePolicy": policy(), "podReplacementPolicy": "TerminatingOrFailed"},
            'Unsupported value: "TerminatingOrFailed": supported values: "Failed"',
        ),
        (
            {"podFailurePolicy": policy("FailJob", 0, 1)},
            "values[0]: Invalid value: 0: must not be 0 for the In operator",
        ),
        ({"managedBy": "kueue"}, 'spec.managedBy: Invalid value: "kueue": must be a domain-prefixed path (such as'),
        ({"successPolicy": success(succeededCount=1)}, "requires indexed completion mode"),
        ({**INDEXED, "successPolicy": {"rules": []}}, "at least one rules must be specified when the successPolicy is"),
        (
            {**INDEXED, "successPolicy": success()},
            "at least one of succeededCount or succeededIndexes must be specified",
        ),
        (
            {**INDEXED, "successPolicy": success(succeededCount=4)},
            "4: must be less than or equal to 3 (the number of spec",
        ),
        (
            {**INDEXED, "successPolicy": success(succeededIndexes="0-1", succeededCount=3)},
            "must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)",
        ),
        (
            {**INDEXED, "successPolicy": success(succeededIndexes="1,0")},
            "error parsing succeededIndexes: non-increasing order, previous: 1, current: 0",
        ),
        (
            {**INDEXED, "successPolicy": success(succeededIndexes="3")},
            'error parsing succeededIndexes: too large index: "3"',
        ),
        (
            {**INDEXED, "successPolicy": success(succeededIndexes="a-b")},
            'cannot convert string to integer for index: "a"',
        ),
    ],
)
async def test_invalid_jobs(registry: Registry, job: Object, spec: Object, text: str) -> None:
    job["spec"] |= spec
    with pytest.raises(StatusError) as raised:
        await registry.create("jobs", job, "default")
    assert raised.value.code == 422 and text in raised.value.message


async def test_a_pod_failure_policy_may_have_no_rules(registry: Registry, job: Object) -> None:
    job["spec"] |= {"podFailurePolicy": {"rules": []}, "managedBy": "example.com/kueue"}
    assert (await registry.create("jobs", job, "default"))["spec"]["podFailurePolicy"] == {"rules": []}


async def test_scheduling_gates_can_be_removed(registry: Registry, pod: Object) -> None:
    pod["spec"]["schedulingGates"] = [{"name": "a"}, {"name": "b"}]
    created = await registry.create("pods", pod, "default")
    assert created["status"]["conditions"][0]["message"] == "Scheduling is blocked due to non-empty scheduling gates"
    assert pod_status(created, datetime.now(UTC)) == "SchedulingGated"
    more = {
        **created,
        "spec": {**created["spec"], "schedulingGates": [*created["spec"]["schedulingGates"], {"name": "c"}]},
    }
    with pytest.raises(StatusError, match="only deletion is allowed, but found new scheduling gate 'c'"):
        await registry.update("pods", more)
    fewer = await registry.update("pods", {**created, "spec": {**created["spec"], "schedulingGates": [{"name": "b"}]}})
    assert fewer["spec"]["schedulingGates"] == [{"name": "b"}]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"env": [{"name": "A", "value": "a", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
            'env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty',
        ),
        (mount(subPath="/etc"), 'volumeMounts[0].subPath: Invalid value: "/etc": must be a relative path'),
        (mount(subPath="a/../../b"), "must not contain '..'"),
        (mount(subPathExpr="$(A)/.."), "volumeMounts[0].subPathExpr: Invalid value: "),
        ({"volumeMounts": [*mount()["volumeMounts"], *mount()["volumeMounts"]]}, 'value: "/v": must be unique'),
        ({"env": [{"name": "A", "valueFrom": {}}]}, "must specify one of: `fieldRef`, `resourceFieldRef`"),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.image"}}}]},
            'fieldPath: Invalid value: "spec.image": error converting fieldPath: field label not supported: spec.image',
        ),
        ({"ports": [{"containerPort": 80, "name": "Web"}]}, "at least one letter (a-z)"),
        ({"restartPolicy": "Always"}, "containers[0].restartPolicy: Forbidden: may not be set for non-init containers"),
        ({"ports": [{"containerPort": 80, "protocol": "tcp"}]}, 'supported values: "SCTP", "TCP", "UDP"'),
    ],
)
async def test_invalid_containers(registry: Registry, pod: Object, change: Object, text: str) -> None:
    pod["spec"]["volumes"] = [{"name": "v"}]
    pod["spec"]["containers"][0] |= change
    with pytest.raises(StatusError) as raised:
        await registry.create("pods", pod, "default")
    assert raised.value.code == 422 and text in raised.value.message


async def test_all_problems_are_reported_with_their_paths(registry: Registry, pod: Object) -> None:
    terms = [
        {"key": "a", "operator": "Is", "values": ["b"]},
        {"key": "a", "operator": "In"},
        {"key": "a", "operator": "Exists", "values": ["b"]},
        {"key": "a", "operator": "Gt", "values": ["1", "2"]},
    ]
    affinity = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": terms}]}}
    pod["spec"] |= {
        "affinity": {"nodeAffinity": affinity},
        "hostname": "A_b",
        "volumes": [{"name": "a", "configMap": {"name": "c"}, "emptyDir": {}}, {"name": "b", "secret": {}}],
    }
    pod["spec"]["containers"][0] = {
        "name": "main",
        "resources": {"limits": {"gpu": 1, "cpu": -1}},
        "volumeMounts": [{"name": "c", "mountPath": "/c"}],
    }
    with pytest.raises(StatusError) as raised:
        await registry.create("pods", pod, "default")
    head = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]"
    assert {each["field"].replace(head, "TERM") for each in raised.value.status["details"]["causes"]} == {
        "TERM.matchExpressions[0].operator",
        "TERM.matchExpressions[1].values",
        "TERM.matchExpressions[2].values",
        "TERM.matchExpressions[3].values",
        "spec.volumes[0].configMap",
        "spec.volumes[1].secret.secretName",
        "spec.containers[0].resources.limits[cpu]",
        "spec.containers[0].resources.limits[gpu]",
        "spec.containers[0].image",
        "spec.hostname",
        "spec.containers[0].volumeMounts[0].name",
    }


@pytest.mark.parametrize("port", [-1, 0, 65536])
async def test_ports_have_16_bits(registry: Registry, pod: Object, port: int) -> None:
    pod["spec"]["containers"][0]["ports"] = [{"containerPort": port}]
    with pytest.raises(StatusError, match="must be between 1 and 65535, inclusive"):
        await registry.create("pods", pod, "default")


@pytest.mark.parametrize(
    ("plural", "change", "text"),
    [
        (
            "configmaps",
            {"metadata": {"name": "c", "labels": {"a b": "c d"}}},
            '[metadata.labels: Invalid value: "a b": name',
        ),
        (
            "configmaps",
            {"metadata": {"name": "c", "annotations": {"a": "x" * 300_000}}},
            "Too long: may not be more than",
        ),
        ("configmaps", {"data": {"a/b": ""}}, "'key.name',  or 'KEY_NAME',  or 'key-name'"),
        ("configmaps", {"data": {"a/b": ""}}, 'data[a/b]: Invalid value: "a/b"'),
        ("configmaps", {"data": {"a": "x" * 1_100_000}}, "data: Too long: may not be more than 1048576 bytes"),
        ("nodes", {"spec": {"taints": [{"key": "a"}]}}, "spec.taints[0].effect: Required value"),
        ("nodes", {"spec": {"taints": [{"key": "a", "effect": "No"}]}}, 'supported values: "NoSchedule"'),
        ("persistentvolumeclaims", {"spec": {}}, "spec.accessModes: Required value"),
        ("persistentvolumeclaims", {"spec": {}}, "spec.resources[storage]: Required value"),
        ("resourcequotas", {"spec": {"hard": {"pods": -1}}}, 'Invalid value: "-1": must be greater than or equal to 0'),
        (
            "resourcequotas",
            {"spec": {"hard": {"gpus": 1}}},
            'spec.hard[gpus]: Invalid value: "gpus": must be a standard',
        ),
        (
            "resourcequotas",
            {"spec": {"hard": {"cpu": 1}, "scopes": ["BestEffort"]}},
            'spec.scopes: Invalid value: ["BestEffort"]: unsupported scope applied to resource',
        ),
        ("resourcequotas", {"spec": {"hard": {"pods": 1}, "scopes": ["Big"]}}, '["Big"]: unsupported scope'),
        (
            "resourcequotas",
            {"spec": {"hard": {"pods": 1}, "scopes": ["Terminating", "NotTerminating"]}},
            'spec.scopes: Invalid value: ["Terminating","NotTerminating"]: conflicting scopes',
        ),
        (
            "resourcequotas",
            {"spec": {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}}},
            "matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn'",
        ),
        (
            "resourcequotas",
            {"spec": {"scopeSelector": {"matchExpressions": [{"scopeName": "BestEffort", "operator": "In"}]}}},
            "operator: Invalid value: \"In\": must be 'Exist' when scope is any of ResourceQuotaScopeTerminating",
        ),
        ("secrets", {"type": "kubernetes.io/tls", "stringData": {"tls.key": "k"}}, "data[tls.crt]: Required value"),
        ("secrets", {"type": "kubernetes.io/dockerconfigjson"}, "data[.dockerconfigjson]: Required value"),
        ("roles", {"metadata": {"name": ".."}}, "may not be '.' or '..'"),
        ("roles", {"rules": [{"apiGroups": [""]}]}, "rules[0].verbs: Required value"),
        (
            "roles",
            {"rules": [{"verbs": ["get"], "resources": ["pods"]}]},
            "rules[0].apiGroups: Required value: resource",
        ),
        ("rolebindings", {"roleRef": {"kind": "User", "name": "x"}}, 'supported values: "Role", "ClusterRole"'),
        ("rolebindings", {}, "roleRef: Required value"),
        ("services", {"spec": {"type": "Virtual"}}, 'supported values: "ClusterIP"'),
        ("priorityclasses", {"value": 1_000_000_001}, "value: Forbidden: maximum allowed value of a user defined"),
        ("priorityclasses", {"metadata": {"name": "system-mine"}}, "metadata.name: Forbidden: priority class names"),
        (
            "configmaps",
            {"metadata": {"name": "c", "ownerReferences": [owner("a"), owner("b")]}},
            'Only one reference can have Controller set to true. Found "true" in references for Job/a and Job/b',
        ),
        (
            "persistentvolumeclaims",
            {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": 0}}}},
            'spec.resources[storage]: Invalid value: "0": must be greater than zero',
        ),
        (
            "daemonsets",
            {"spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "a", "image": "x"}]}}}},
            "spec.selector: Invalid value: {}: empty selector is invalid for daemonset",
        ),
        (
            "daemonsets",
            {"spec": {"selector": {"matchLabels": {"a b": "c"}}, "template": {}}},
            'spec.selector.matchLabels: Invalid value: "a b"',
        ),
        ("leases", {"spec": {"leaseDurationSeconds": 0}}, "must be greater than or equal to 1"),
    ],
)
async def test_invalid_values(registry: Registry, plural: str, change: Object, text: str) -> None:
    with pytest.raises(StatusError) as raised:
        namespace = None if plural == "priorityclasses" else "default"
        await registry.create(plural, {"metadata": {"name": "c"}} | change, namespace)
    assert raised.value.code == 422 and text in raised.value.message


@pytest.mark.parametrize(
    ("plural", "obj", "change", "text"),
    [
        ("secrets", {}, {"type": "a/b"}, 'type: Invalid value: "a/b": field is immutable'),
        ("priorityclasses", {"value": 1}, {"value": 2}, "value: Invalid value: 2: field is immutable"),
        (
            "rolebindings",
            {"roleRef": {"kind": "Role", "name": "a"}},
            {"roleRef": {"name": "b"}},
            "cannot change roleRef",
        ),
        (
            "persistentvolumeclaims",
            {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}},
            {"spec": {"storageClassName": "other"}},
            "spec: Forbidden: spec is immutable after creation",
        ),
        (
            "pods",
            {"spec": {"containers": [{"name": "main", "image": "busybox:1"}]}},
            {"spec": {"hostname": "other"}},
            "spec: Forbidden: pod updates may not change fields other than",
        ),
        (
            "pods",
            {"spec": {"containers": [{"name": "main", "image": "busybox:1"}]}},
            {"spec": {"tolerations": []}},
            "existing toleration can not be modified",
        ),
    ],
)
async def test_immutable_fields(registry: Registry, plural: str, obj: Object, change: Object, text: str) -> None:
    await registry.create(plural, {"metadata": {"name": "c"}} | obj, "default")
    namespace = None if plural == "priorityclasses" else "default"
    with pytest.raises(StatusError) as raised:
        await registry.patch(plural, "c", change, namespace)
    assert raised.value.code == 422 and text in raised.value.message


async def test_finalizers_need_a_qualified_name(registry: Registry) -> None:
    given = {"metadata": {"name": "c", "finalizers": ["mine"]}}
    with pytest.raises(StatusError, match="neither a standard finalizer name nor is it fully qualified"):
        await registry.create("configmaps", given, "default")


async def test_orphan_dependents_excludes_a_propagation_policy(registry: Registry, job: Object) -> None:
    await registry.create("jobs", job, "default")
    wishes = {"orphanDependents": True, "propagationPolicy": "Background"}
    with pytest.raises(StatusError, match="orphanDependents and deletionPropagation cannot be both set"):
        await registry.write("delete", "jobs", wishes, "train", "default")


async def test_defaults_of_a_job_with_limits_per_index(registry: Registry, job: Object) -> None:
    job["spec"] |= {**INDEXED, **LIMITED}
    spec = (await registry.create("jobs", job, "default"))["spec"]
    assert (spec["backoffLimit"], spec["podReplacementPolicy"]) == (2**31 - 1, "TerminatingOrFailed")
    assert "maxFailedIndexes" not in spec


async def test_hostnames_of_an_indexed_job_must_be_labels(registry: Registry, job: Object) -> None:
    job["metadata"]["name"] = "x" * 62
    job["spec"] |= INDEXED
    with pytest.raises(StatusError, match=r"will not able to create pod with invalid DNS label: x{62}-2"):
        await registry.create("jobs", job, "default")


@pytest.mark.parametrize(
    ("field", "value"),
    [("backoffLimitPerIndex", 2), ("successPolicy", success(succeededCount=2)), ("managedBy", "example.com/other")],
)
async def test_fields_of_a_job_that_do_not_change(registry: Registry, job: Object, field: str, value: Any) -> None:
    fixed = {**LIMITED, "successPolicy": success(succeededCount=1), "managedBy": "example.com/kueue"}
    job["spec"] |= {**INDEXED, **fixed}
    name = (await registry.create("jobs", job, "default"))["metadata"]["name"]
    await registry.patch("jobs", name, {"spec": {"maxFailedIndexes": 1}}, "default")
    with pytest.raises(StatusError, match=rf"spec\.{field}: Invalid value: .*: field is immutable"):
        await registry.patch("jobs", name, {"spec": {field: value}}, "default")


async def test_the_template_of_a_suspended_job(registry: Registry, job: Object) -> None:
    job["spec"]["suspend"] = True
    name = (await registry.create("jobs", job, "default"))["metadata"]["name"]

    async def change(container: Object, **spec: Any) -> Object:
        named = {"name": job["spec"]["template"]["spec"]["containers"][0]["name"], **container}
        template = {"spec": {"containers": [named], **spec}}
        options: dict[str, Any] = {"content_type": "application/strategic-merge-patch+json"}
        return await registry.patch("jobs", name, {"spec": {"template": template}}, "default", **options)

    async def set_status(**status: Any) -> None:
        await registry.patch("jobs", name, {"status": status}, "default", subresource="status")

    cpu = {"resources": {"requests": {"cpu": "2"}}}
    changed = await change(cpu, nodeSelector={"zone": "a"})
    assert changed["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "2"}
    with pytest.raises(StatusError, match=r"spec\.template\.spec: Invalid value: .*: field is immutable"):
        await change({"image": "other"})
    await set_status(startTime="2026-01-01T00:00:00Z", active=1)
    with pytest.raises(StatusError, match=r"spec\.template: Invalid value: .*: field is immutable"):
        await change({"resources": {"requests": {"cpu": "3"}}})
    suspended = {"type": "Suspended", "status": "True"}
    await set_status(active=0, conditions=[suspended])
    await change({"resources": {"requests": {"cpu": "3"}}})
