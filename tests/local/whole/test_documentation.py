"""Unchanged examples from Kubernetes' documentation, and programs that find each other by name, with kubectl."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.live_cluster import LiveCluster, kubectls
from support.polling import wait_for

from tests.local.node.test_network import MEET

pytest_plugins = ["aksgpu.local.testing", "support.live_cluster"]

KUBECTLS = kubectls()
pytestmark = pytest.mark.skipif(not KUBECTLS, reason="no kubectl on PATH")

# https://kubernetes.io/docs/tasks/job/job-with-pod-to-pod-communication/
POD_TO_POD = """
apiVersion: v1
kind: Service
metadata:
  name: headless-svc
spec:
  clusterIP: None # clusterIP must be None to create a headless service
  selector:
    job-name: example-job # must match Job name
---
apiVersion: batch/v1
kind: Job
metadata:
  name: example-job
spec:
  completions: 3
  parallelism: 3
  completionMode: Indexed
  template:
    spec:
      subdomain: headless-svc # has to match Service name
      restartPolicy: Never
      containers:
      - name: example-workload
        image: bash:latest
        command:
        - bash
        - -c
        - |
          for i in 0 1 2
          do
            gotStatus="-1"
            wantStatus="0"
            while [ $gotStatus -ne $wantStatus ]
            do
              ping -c 1 example-job-${i}.headless-svc > /dev/null 2>&1
              gotStatus=$?
              if [ $gotStatus -ne $wantStatus ]; then
                echo "Failed to ping pod example-job-${i}.headless-svc, retrying in 1 second..."
                sleep 1
              fi
            done
            echo "Successfully pinged pod: example-job-${i}.headless-svc"
          done
"""

# https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#jobs-with-sidecar-containers
SIDECAR = """
apiVersion: batch/v1
kind: Job
metadata:
  name: myjob
spec:
  template:
    spec:
      containers:
        - name: myjob
          image: alpine:latest
          command: ['sh', '-c', 'echo "logging" > /opt/logs.txt']
          volumeMounts:
            - name: data
              mountPath: /opt
      initContainers:
        - name: logshipper
          image: alpine:latest
          restartPolicy: Always
          command: ['sh', '-c', 'tail -F /opt/logs.txt']
          volumeMounts:
            - name: data
              mountPath: /opt
      restartPolicy: Never
      volumes:
        - name: data
          emptyDir: {}
"""

# https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
TERMINATION = """
apiVersion: v1
kind: Pod
metadata:
  name: termination-demo
spec:
  containers:
  - name: termination-demo-container
    image: debian
    command: ["/bin/sh"]
    args: ["-c", "sleep 10 && echo Sleep expired > /dev/termination-log"]
"""

GROUP = """
apiVersion: v1
kind: Service
metadata: {name: NAME}
spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {job-name: NAME}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: NAME}
spec:
  completions: 2
  parallelism: 2
  completionMode: Indexed
  backoffLimit: 0
  template:
    spec:
      subdomain: NAME
      restartPolicy: Never
      containers:
      - name: main
        image: python:3.11
        command: [python3, -c, CODE]
        env:
        - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: PORT, value: "29519"}
        - {name: GROUP, value: NAME}
"""
PEERS = """
import os
os.environ["RANK"] = os.environ["JOB_COMPLETION_INDEX"]
os.environ["PEER"] = "{0}-{1}.{0}".format(os.environ["GROUP"], 1 - int(os.environ["RANK"]))
"""


def run(live_cluster: LiveCluster, *args: str, stdin: str = "") -> str:
    done = live_cluster.kubectl(KUBECTLS[-1], *args, stdin=stdin)
    assert done.returncode == 0, (args, done.stdout, done.stderr)
    return done.stdout


def pods_of(live_cluster: LiveCluster, job: str) -> list[dict[str, Any]]:
    """Return the pods of a Job, by completion index."""
    text = run(live_cluster, "get", "pods", "-l", f"job-name={job}", "-o", "json")
    return sorted(json.loads(text)["items"], key=lambda pod: str(pod["spec"].get("hostname")))


def test_pods_of_a_job_reach_each_other(live_cluster: LiveCluster) -> None:
    run(live_cluster, "apply", "-f", "-", stdin=POD_TO_POD)
    run(live_cluster, "wait", "--for=condition=complete", "job/example-job", "--timeout=100s")
    for pod in pods_of(live_cluster, "example-job"):
        lines = run(live_cluster, "logs", pod["metadata"]["name"]).splitlines()
        reached = [line for line in lines if not line.startswith("Failed")]
        assert reached == [f"Successfully pinged pod: example-job-{index}.headless-svc" for index in range(3)]
    run(live_cluster, "delete", "-f", "-", stdin=POD_TO_POD)


def test_a_sidecar_in_a_job(live_cluster: LiveCluster) -> None:
    run(live_cluster, "apply", "-f", "-", stdin=SIDECAR)
    run(live_cluster, "wait", "--for=condition=complete", "job/myjob", "--timeout=100s")
    (pod,) = pods_of(live_cluster, "myjob")
    (sidecar,) = pod["status"]["initContainerStatuses"]
    (main,) = pod["status"]["containerStatuses"]
    assert pod["status"]["phase"] == "Succeeded"
    assert main["state"]["terminated"]["finishedAt"] <= sidecar["state"]["terminated"]["finishedAt"]
    assert run(live_cluster, "logs", pod["metadata"]["name"], "-c", "myjob") == ""
    run(live_cluster, "logs", pod["metadata"]["name"], "-c", "logshipper")  # it may be stopped before its first line
    run(live_cluster, "delete", "-f", "-", stdin=SIDECAR)


def test_the_reason_of_a_failure(live_cluster: LiveCluster) -> None:
    run(live_cluster, "apply", "-f", "-", stdin=TERMINATION)
    message = "{.status.containerStatuses[0].lastState.terminated.message}"
    run(live_cluster, "wait", f"--for=jsonpath={message}=Sleep expired\n", "pod/termination-demo", "--timeout=100s")
    run(live_cluster, "delete", "pod", "termination-demo", "--grace-period=0", "--force")


def test_two_jobs_find_each_other_by_name_at_the_same_time(live_cluster: LiveCluster) -> None:
    code = json.dumps(PEERS + MEET)
    manifests = {name: GROUP.replace("CODE", code).replace("NAME", name) for name in ("red", "blue")}
    for manifest in manifests.values():
        run(live_cluster, "apply", "-f", "-", stdin=manifest)
    for name, manifest in manifests.items():
        run(live_cluster, "wait", "--for=condition=complete", f"job/{name}", "--timeout=100s")
        for index, pod in enumerate(pods_of(live_cluster, name)):
            full = f"{name}-{index}.{name}.default.svc.cluster.local"
            assert run(live_cluster, "logs", pod["metadata"]["name"]) == f"met {name}-{1 - index} at {full}\n"
        run(live_cluster, "delete", "-f", "-", stdin=manifest)


def test_endpoints_are_shown(live_cluster: LiveCluster) -> None:
    pod = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: main, image: busybox, command: [sleep, "600"], ports: [{name: http, containerPort: 8080}]}]}
"""
    run(live_cluster, "apply", "-f", "-", stdin=pod)
    run(live_cluster, "expose", "pod", "web", "--port=80", "--target-port=http")
    run(live_cluster, "wait", "--for=condition=Ready", "pod/web", "--timeout=100s")
    address = run(live_cluster, "get", "pod", "web", "-o", "jsonpath={.status.podIP}")
    run(live_cluster, "wait", "--for=jsonpath={.subsets[0].addresses[0].ip}=" + address, "endpoints/web")
    assert f"{address}:8080" in run(live_cluster, "get", "endpoints", "web")
    slices = ("get", "endpointslices", "-l", "kubernetes.io/service-name=web")
    wait_for(lambda: address in run(live_cluster, *slices))  # They are written after the Endpoints.
    assert f"{address}:8080" in run(live_cluster, "describe", "service", "web")
    run(live_cluster, "delete", "service/web", "pod/web", "--grace-period=0", "--force")
    run(live_cluster, "wait", "--for=delete", "endpoints/web", "--timeout=100s")
