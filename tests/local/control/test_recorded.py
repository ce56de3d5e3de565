"""What the controllers write, compared with a real Kubernetes."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from aksgpu.local.control.daemonset_controller import new_pod as daemon_pod
from aksgpu.local.control.job_accounting import build_status, count_pods, job_result, new_condition
from aksgpu.local.control.job_controller import new_pod
from aksgpu.local.control.scheduler_queue import SchedulerQueue

_DATA = Path(__file__).parents[2] / "data" / "kube-recordings"


@cache
def _steps(scenario: str) -> list[dict[str, Any]]:
    return list(json.loads((_DATA / f"{scenario}.json").read_text())["steps"])


def _output(scenario: str, command: str) -> Any:
    return next(json.loads(step["stdout"]) for step in _steps(scenario) if step["command"] == command)


def _subset(created: Any, recorded: Any, path: str = "") -> None:
    """Check that everything in an object is in the recorded one. The API server has added the rest."""
    if isinstance(created, dict):
        for key, value in created.items():
            assert key in recorded, f"{path}.{key} is not recorded"
            _subset(value, recorded[key], f"{path}.{key}")
    elif isinstance(created, list):
        assert len(created) <= len(recorded), path
        for number, value in enumerate(created):
            _subset(value, recorded[number], f"{path}[{number}]")
    else:
        assert created == recorded, path


def test_pods_of_an_indexed_job() -> None:
    job = _output("05-job-life", "kubectl get job sweep -o json")
    pods = _output("05-job-life", "kubectl get pods -l app=sweep -o json")["items"]
    assert len(pods) == 3
    for index, recorded in enumerate(sorted(pods, key=lambda pod: pod["metadata"]["name"])):
        created = new_pod(job, index)
        assert created["metadata"].pop("finalizers") == [
            "batch.kubernetes.io/job-tracking"
        ]  # Removed once the pod has been counted.
        _subset(created, recorded)


def _final_status(job: dict[str, Any], pods: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the final status of a Job whose pods have all ended and none has been counted."""
    fresh = {**job, "status": {}}
    held = [
        {**pod, "metadata": {**pod["metadata"], "finalizers": ["batch.kubernetes.io/job-tracking"]}} for pod in pods
    ]
    sums = count_pods(fresh, held)
    end = job_result(fresh, sums)
    assert end and len(sums.to_release) == len(pods)
    conditions = [new_condition(kind, end.reason, end.message) for kind in (end.target, end.final)]
    announced = {**fresh, "status": build_status(sums, conditions[:1], job["status"]["startTime"])}
    counted = count_pods(announced, pods)
    return build_status(counted, conditions, job["status"]["startTime"])


def _without_times(status: dict[str, Any]) -> Any:
    return json.loads(re.sub(r'"\d{4}-\d\d-\d\dT[^"]*"', '"TIME"', json.dumps(status, sort_keys=True)))


def test_status_of_finished_jobs() -> None:
    for name in ("sweep", "fails"):
        job = _output("05-job-life", f"kubectl get job {name} -o json")
        pods = _output("05-job-life", f"kubectl get pods -l app={name} -o json")["items"]
        assert _without_times(_final_status(job, pods)) == _without_times(job["status"])


def test_pod_of_the_device_plugin() -> None:
    bodies = [
        json.loads(exchange["response_body"])
        for step in _steps("01-tutorial")
        for exchange in step["exchanges"]
        if exchange["method"] == "POST" and exchange["path"].startswith("/apis/apps/v1/namespaces/gpu-resources")
    ]
    [daemonset] = [body for body in bodies if body["kind"] == "DaemonSet"]
    pod = daemon_pod(daemonset, "localhost")
    assert pod["metadata"]["generateName"] == "nvidia-device-plugin-daemonset-"
    assert pod["metadata"]["labels"]["pod-template-generation"] == "1"
    assert pod["spec"]["priorityClassName"] == "system-node-critical"
    assert pod["spec"]["tolerations"][0]["key"] == "sku" and len(pod["spec"]["tolerations"]) == 7


def test_message_of_a_pod_that_requests_too_many_gpus() -> None:
    described = next(
        step["stdout"]
        for step in _steps("05-job-life")
        if step["command"].startswith("kubectl describe pod -l app=needs")
    )
    [text] = re.findall(r"FailedScheduling .* default-scheduler  (.*)", described)
    # The text of 1.36 has one more part than the recorded one.
    text = text.replace(" preemption:", " no new claims to deallocate, preemption:")
    queue = SchedulerQueue()
    allocatable = {"pods": "110", "nvidia.com/gpu": "1"}
    ready = [{"type": "Ready", "status": "True"}]
    node = {"metadata": {"name": "localhost"}, "status": {"allocatable": allocatable, "conditions": ready}}
    queue.node_changed("localhost", node)
    container = {"resources": {"limits": {"nvidia.com/gpu": "2"}}}
    pod = {"metadata": {"uid": "u", "name": "p", "namespace": "default"}, "spec": {"containers": [container]}}
    queue.pod_changed("u", pod)
    assert [message for _, message in queue.unreported(1.0)[0]] == [text]
