"""Tables compared with recorded ones, and cells of pods in states that were not recorded."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support import recorded

from aksgpu.local.api.table_cells import age, duration, labels
from aksgpu.local.api.tables import columns, table
from aksgpu.local.kinds import KINDS

AGE = re.compile(r"(\d+[smhdy]){1,2}")
NOW = datetime(2026, 11, 23, 11, 0, tzinfo=UTC)


def cells(plural: str, obj: dict[str, Any]) -> list[Any]:
    return [column.cell(obj, NOW) for column in columns(plural)]


def without_ages(row: list[Any]) -> list[Any]:
    return ["<age>" if isinstance(cell, str) and AGE.fullmatch(cell) else cell for cell in row]


def test_columns_match_the_recordings() -> None:
    seen = set()
    for plural, document in recorded.tables():
        created = table(plural, [], {})
        assert created["columnDefinitions"] == document["columnDefinitions"], plural
        seen.add(plural)
    assert seen == set(recorded.PLURALS)


def test_cells_match_the_recordings() -> None:
    by_version = {(obj["metadata"]["uid"], obj["metadata"]["resourceVersion"]): obj for obj in recorded.objects()}
    compared = set()
    for plural, document in recorded.tables():
        for row in document["rows"]:
            metadata = row["object"]["metadata"]
            obj = row["object"] if "involvedObject" in row["object"] else None
            obj = obj or by_version.get((metadata["uid"], metadata["resourceVersion"]))
            if obj is None:
                continue
            created = table(plural, [obj], {})["rows"][0]
            assert without_ages(created["cells"]) == without_ages(row["cells"])
            assert created.get("conditions") == row.get("conditions")
            compared.add(plural)
    assert compared >= {"pods", "nodes", "events", "configmaps"}


def test_every_kind_fills_its_columns() -> None:
    for kind in KINDS:
        obj: dict[str, Any] = {"metadata": {"name": "x"}}
        if kind.plural in ("jobs", "daemonsets"):
            obj["spec"] = {"template": {"spec": {}}}
        assert None not in cells(kind.plural, obj), kind.plural
        assert all(column["description"] for column in table(kind.plural, [], {})["columnDefinitions"])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0.9, "0s"),
        (119, "119s"),
        (120, "2m"),
        (130, "2m10s"),
        (599, "9m59s"),
        (600, "10m"),
        (10799, "179m"),
        (10800, "3h"),
        (11000, "3h3m"),
        (28800, "8h"),
        (172799, "47h"),
        (172800, "2d"),
        (180000, "2d2h"),
        (691200, "8d"),
        (63072000, "730d"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_cell_texts() -> None:
    assert age(None, NOW) == "<unknown>"
    assert age("2026-11-23T10:59:00Z", NOW) == "60s"
    assert labels({"b": "2", "a": "1"}, NOW) == "a=1,b=2"
    assert labels(None, NOW) == labels({}, NOW) == "<none>"


def container(name: str = "main", *, restarts: int = 0, ready: bool = False, **state: Any) -> dict[str, Any]:
    return {"name": name, "ready": ready, "restartCount": restarts, "state": state}


def pod(*mains: dict[str, Any], inits: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    metadata = more.pop("metadata", {})
    spec = more.pop("spec", {})
    return {
        "metadata": {"name": "p", **metadata},
        "spec": {
            "containers": [{"name": c["name"]} for c in mains] or [{"name": "main"}],
            "initContainers": [{"name": c["name"]} for c in inits or ()],
            **spec,
        },
        "status": {"phase": "Pending", "containerStatuses": list(mains), "initContainerStatuses": inits or [], **more},
    }


RUNNING = {"running": {"startedAt": "2026-11-23T10:00:00Z"}}


@pytest.mark.parametrize(
    ("obj", "shown"),
    [
        (pod(), ["0/1", "Pending", "0"]),
        (pod(container(waiting={"reason": "ContainerCreating"})), ["0/1", "ContainerCreating", "0"]),
        (pod(container(waiting={"reason": "ImagePullBackOff"})), ["0/1", "ImagePullBackOff", "0"]),
        (pod(container(ready=True, **RUNNING), phase="Running"), ["1/1", "Running", "0"]),
        (
            pod(container(terminated={"exitCode": 0, "reason": "Completed"}), phase="Succeeded"),
            ["0/1", "Completed", "0"],
        ),
        (pod(container(terminated={"exitCode": 3, "reason": "Error"}), phase="Failed"), ["0/1", "Error", "0"]),
        (pod(container(terminated={"exitCode": 3}), phase="Failed"), ["0/1", "ExitCode:3", "0"]),
        (pod(container(terminated={"exitCode": 137, "signal": 9}), phase="Failed"), ["0/1", "Signal:9", "0"]),
        (pod(phase="Failed", reason="Evicted"), ["0/1", "Evicted", "0"]),
        (
            pod(container(ready=True, **RUNNING), phase="Running", metadata={"deletionTimestamp": "x"}),
            ["1/1", "Terminating", "0"],
        ),
        (pod(phase="Succeeded", metadata={"deletionTimestamp": "x"}), ["0/1", "Succeeded", "0"]),
        (
            pod(container(waiting={"reason": "PodInitializing"}), inits=[container("a", **RUNNING), container("b")]),
            ["0/1", "Init:0/2", "0"],
        ),
        (
            pod(
                inits=[
                    container("a", terminated={"exitCode": 0}),
                    container("b", waiting={"reason": "CrashLoopBackOff"}),
                ],
            ),
            ["0/1", "Init:CrashLoopBackOff", "0"],
        ),
        (pod(inits=[container("a", terminated={"exitCode": 1, "reason": "Error"})]), ["0/1", "Init:Error", "0"]),
        (pod(inits=[container("a", terminated={"exitCode": 2})]), ["0/1", "Init:ExitCode:2", "0"]),
        (
            pod(
                container("a", terminated={"exitCode": 0, "reason": "Completed"}),
                container("b", ready=True, **RUNNING),
                phase="Running",
            ),
            ["1/2", "NotReady", "0"],
        ),
        (
            pod(
                {
                    **container(restarts=3, ready=True, **RUNNING),
                    "lastState": {"terminated": {"finishedAt": "2026-11-23T10:58:00Z"}},
                },
                phase="Running",
            ),
            ["1/1", "Running", "3 (2m ago)"],
        ),
    ],
)
def test_pod_cells(obj: dict[str, Any], shown: list[str]) -> None:
    assert cells("pods", obj)[1:4] == shown


@pytest.mark.parametrize(
    ("status", "metadata", "word"),
    [
        ({}, {}, "Running"),
        ({"conditions": [{"type": "Complete", "status": "True"}]}, {"deletionTimestamp": "x"}, "Complete"),
        ({"conditions": [{"type": "Failed", "status": "True"}]}, {}, "Failed"),
        ({"conditions": [{"type": "FailureTarget", "status": "True"}]}, {}, "FailureTarget"),
        ({"conditions": [{"type": "SuccessCriteriaMet", "status": "True"}]}, {}, "Running"),
        ({"conditions": [{"type": "Suspended", "status": "True"}]}, {}, "Suspended"),
        ({"conditions": [{"type": "Suspended", "status": "False"}]}, {}, "Running"),
        ({}, {"deletionTimestamp": "x"}, "Terminating"),
    ],
)
def test_job_status(status: dict[str, Any], metadata: dict[str, Any], word: str) -> None:
    spec = {"completions": 3, "template": {"spec": {"containers": [{"name": "a", "image": "i"}]}}}
    started = (NOW - timedelta(seconds=75)).isoformat()
    obj = {"metadata": {"name": "j", **metadata}, "spec": spec, "status": {"startTime": started, **status}}
    assert cells("jobs", obj)[1:4] == [word, "0/3", "75s"]


def test_node_status() -> None:
    node = {
        "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/b": "", "kubernetes.io/role": "agent"}},
        "spec": {"unschedulable": True},
        "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]},
    }
    assert cells("nodes", node)[1:3] == ["NotReady,SchedulingDisabled", "agent,b"]


def test_quota_and_binding() -> None:
    quota = {
        "metadata": {"name": "q"},
        "status": {"hard": {"requests.nvidia.com/gpu": "2", "limits.cpu": "4"}, "used": {"limits.cpu": "1"}},
    }
    assert cells("resourcequotas", quota)[1:3] == ["requests.nvidia.com/gpu: 0/2", "limits.cpu: 1/4"]
    binding = {
        "metadata": {"name": "b"},
        "roleRef": {"kind": "Role", "name": "r"},
    }
    assert cells("rolebindings", binding)[1] == "Role/r"
