"""Each kind with kubectl on a complete laptop AKS: create, get, describe, delete."""

from __future__ import annotations

import re

import pytest
from support.live_cluster import LiveCluster, kubectls
from support.polling import wait_for

from aksgpu.local.kinds import KINDS

pytest_plugins = ["aksgpu.local.testing", "support.live_cluster"]

KUBECTLS = kubectls()
pytestmark = pytest.mark.skipif(not KUBECTLS, reason="no kubectl on PATH")

OBJECTS = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteMany], storageClassName: azurefile-csi, resources: {requests: {storage: 5Gi}}}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: fast}
provisioner: disk.csi.azure.com
parameters: {skuName: Premium_ZRS}
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: turn}
spec: {holderIdentity: me, leaseDurationSeconds: 30}
---
apiVersion: v1
kind: Event
metadata: {name: recorded.1}
involvedObject: {kind: Pod, name: none, namespace: default}
reason: Recorded
message: something
type: Normal
"""
MAKE = (
    ("namespace", "kinds"),
    ("configmap", "kinds", "--from-literal=a=1"),
    ("secret", "generic", "kinds", "--from-literal=password=hush"),
    ("service", "clusterip", "kinds", "--tcp=80:80"),
    ("serviceaccount", "kinds"),
    ("priorityclass", "kinds", "--value=10"),
    ("role", "kinds", "--verb=get", "--resource=pods"),
    ("rolebinding", "kinds", "--role=kinds", "--user=me"),
    ("clusterrole", "kinds", "--verb=get", "--resource=nodes"),
    ("clusterrolebinding", "kinds", "--clusterrole=kinds", "--user=me"),
)
ELSEWHERE = {
    "daemonset",
    "endpoints",
    "endpointslice",
    "job",
    "node",
    "pod",
    "resourcequota",
    "selfsubjectaccessreview",
    "selfsubjectreview",
    "selfsubjectrulesreview",
    "tokenreview",
}
"""Kinds with tests of their own in this directory and in ``tests/local/control``."""
SHOWN = {
    "persistentvolumeclaim/data": ["data", "Bound", "pvc-", "5Gi", "RWX", "azurefile-csi"],
    "storageclass/fast": ["fast", "disk.csi.azure.com", "Delete", "Immediate"],
    "lease/turn": ["turn", "me"],
    "event/recorded.1": ["Normal", "Recorded", "pod/none", "something"],
}


def test_no_kind_is_left_out() -> None:
    tried = {*(name.partition("/")[0] for name in SHOWN), *(words[0] for words in MAKE), *ELSEWHERE}
    assert tried == {kind.kind.lower() for kind in KINDS}, "add the kind to OBJECTS and SHOWN, or to MAKE"


def test_every_kind(live_cluster: LiveCluster) -> None:
    def run(*args: str, code: int = 0, stdin: str = "") -> str:
        done = live_cluster.kubectl(KUBECTLS[-1], *args, stdin=stdin)
        assert done.returncode == code, (args, done.stdout, done.stderr)
        return done.stdout + done.stderr

    run("create", "-f", "-", stdin=OBJECTS)
    for words in MAKE:
        assert run("create", *words).rstrip().endswith("/kinds created")
    names = [*SHOWN, *(f"{words[0]}/kinds" for words in MAKE)]
    wait_for(lambda: "Bound" in run("get", "pvc"))
    for name in names:
        table = run("get", name)
        assert all(word in table for word in SHOWN.get(name, ["kinds"])), table
        described = run("describe", name)
        assert re.search(rf"Name:\s+{name.partition('/')[2]}\n", described) and "hush" not in described
        assert "deleted" in run("delete", name)
        assert "not found" in run("get", name, code=1)


def test_a_quota_of_gpus(live_cluster: LiveCluster) -> None:
    def run(*args: str, code: int = 0, stdin: str = "") -> str:
        done = live_cluster.kubectl(KUBECTLS[-1], *args, "-n", "few", stdin=stdin)
        assert done.returncode == code, (args, done.stdout, done.stderr)
        return done.stdout + done.stderr

    run("create", "namespace", "few")
    run("create", "quota", "gpus", "--hard=requests.nvidia.com/gpu=1")
    pod = """
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec: {containers: [{name: main, image: busybox, resources: {limits: {nvidia.com/gpu: 1}}}]}
"""
    run("create", "-f", "-", stdin=pod.replace("NAME", "first"))
    refused = run("create", "-f", "-", code=1, stdin=pod.replace("NAME", "second"))
    assert refused == (
        'Error from server (Forbidden): error when creating "STDIN": pods "second" is forbidden: exceeded quota: gpus, '
        "requested: requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=1, limited: requests.nvidia.com/gpu=1\n"
    )
    wait_for(lambda: "requests.nvidia.com/gpu: 1/1" in run("get", "quota"))
    assert re.search(r"requests.nvidia.com/gpu\s+1\s+1\n", run("describe", "quota", "gpus"))
    run("delete", "namespace", "few")


def test_a_job_survives_disruptions_of_its_pods(live_cluster: LiveCluster) -> None:
    def run(*args: str, stdin: str = "") -> str:
        done = live_cluster.kubectl(KUBECTLS[-1], *args, "-n", "sturdy", stdin=stdin)
        assert done.returncode == 0, (args, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def running(*before: str) -> str:
        def new_names() -> list[str]:
            names = run("get", "pods", "--field-selector=status.phase=Running", "-o", "name").split()
            return [name for name in names if name not in before]

        return wait_for(new_names)[0]

    job = """
apiVersion: batch/v1
kind: Job
metadata: {name: sturdy}
spec:
  backoffLimit: 0
  podFailurePolicy: {rules: [{action: Ignore, onPodConditions: [{type: DisruptionTarget, status: "True"}]}]}
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 5
      containers: [{name: main, image: busybox, command: [sh, -c, 'trap "exit 1" TERM; while :; do sleep 0.1; done']}]
"""
    run("create", "namespace", "sturdy")
    run("create", "-f", "-", stdin=job)
    first = running()
    node = run("get", first, "-o", "jsonpath={.spec.nodeName}")
    run("taint", "node", node, "broken=yes:NoExecute")
    wait_for(lambda: first not in run("get", "pods", "-o", "name").split())
    run("taint", "node", node, "broken:NoExecute-")
    second = running(first)
    run("drain", node, "--ignore-daemonsets", "--force", "--pod-selector=batch.kubernetes.io/job-name=sturdy")
    run("uncordon", node)
    running(first, second)
    assert run("get", "job", "sturdy", "-o", "jsonpath={.status.failed}{.status.conditions}") == ""
    run("delete", "namespace", "sturdy")
