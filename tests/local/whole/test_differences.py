"""What docs/laptop.md and docs/differences.md say about pods, watches and missing parts, with kubectl."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client, watch
from kubernetes import config as kubeconfig
from support.live_cluster import LiveCluster, kubectls
from support.polling import wait_for

pytest_plugins = ["aksgpu.local.testing", "support.live_cluster"]

KUBECTLS = kubectls()
pytestmark = pytest.mark.skipif(not KUBECTLS, reason="no kubectl on PATH")

WAITS = """
apiVersion: v1
kind: Pod
metadata: {name: waits}
spec:
  restartPolicy: Never
  volumes: [{name: data, persistentVolumeClaim: {claimName: later}}]
  containers:
  - name: main
    image: busybox
    command: [sh, -c, "echo stored > /data/file && cat /data/file"]
    volumeMounts: [{name: data, mountPath: /data}]
"""
CLAIM = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: later}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  SPEC
  containers: [{name: main, image: busybox, command: [sleep, "100"]}]
"""
DAEMON_SET_OF_2020 = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: nvidia-device-plugin-daemonset}
spec:
  selector: {matchLabels: {name: nvidia-device-plugin-ds}}
  template:
    metadata:
      annotations: {scheduler.alpha.kubernetes.io/critical-pod: ""}
      labels: {name: nvidia-device-plugin-ds}
    spec:
      containers: [{name: nvidia-device-plugin-ctr, image: "mcr.microsoft.com/oss/nvidia/k8s-device-plugin:1.11"}]
"""


def kubectl(live_cluster: LiveCluster, *args: str, code: int = 0, stdin: str = "") -> str:
    """Run kubectl, and return what it prints. Its exit code must be ``code``."""
    done = live_cluster.kubectl(KUBECTLS[-1], *args, stdin=stdin)
    assert done.returncode == code, (args, done.stdout, done.stderr)
    return done.stdout + done.stderr


def events_of(live_cluster: LiveCluster, name: str, reason: str) -> list[str]:
    """Return the messages of the events about an object, oldest first."""
    selector = f"--field-selector=involvedObject.name={name},reason={reason}"
    found = json.loads(kubectl(live_cluster, "get", "events", selector, "-o", "json"))["items"]
    return [event["message"] for event in found]


@pytest.fixture
def api(live_cluster: LiveCluster) -> Iterator[client.CoreV1Api]:
    with kubeconfig.new_client_from_config(str(live_cluster.kubeconfig)) as connection:
        yield client.CoreV1Api(connection)


def test_a_pod_waits_for_a_claim_that_does_not_exist_yet(live_cluster: LiveCluster) -> None:
    kubectl(live_cluster, "apply", "-f", "-", stdin=WAITS)
    (message,) = wait_for(lambda: events_of(live_cluster, "waits", "FailedScheduling"))
    assert message == (
        '0/1 nodes are available: persistentvolumeclaim "later" not found. no new claims to deallocate, preemption: '
        "0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )
    pod = json.loads(kubectl(live_cluster, "get", "pod", "waits", "-o", "json"))
    (condition,) = pod["status"]["conditions"]
    assert (pod["status"]["phase"], condition["reason"], condition["message"]) == ("Pending", "Unschedulable", message)
    kubectl(live_cluster, "apply", "-f", "-", stdin=CLAIM)
    kubectl(live_cluster, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/waits", "--timeout=60s")
    assert kubectl(live_cluster, "logs", "waits") == "stored\n"
    kubectl(live_cluster, "delete", "pod/waits", "pvc/later")


def test_a_watch_shows_a_pod_that_was_made_and_deleted_while_it_was_away(
    live_cluster: LiveCluster, api: client.CoreV1Api
) -> None:
    version = api.list_namespaced_pod("default").metadata.resource_version
    kubectl(live_cluster, "run", "brief", "--image=busybox", "--restart=Never", "--", "sleep", "100")
    kubectl(live_cluster, "delete", "pod", "brief", "--force", "--grace-period=0")
    seen: list[tuple[str, str]] = []
    stream = watch.Watch().stream(api.list_namespaced_pod, "default", resource_version=version, timeout_seconds=60)
    for event in stream:
        seen.append((event["type"], event["object"].metadata.name))
        if event["type"] == "DELETED":
            break
    assert (seen[0], seen[-1]) == (("ADDED", "brief"), ("DELETED", "brief"))
    assert {name for _, name in seen} == {"brief"}
    assert {kind for kind, _ in seen[1:-1]} <= {"MODIFIED"}


def test_a_watch_from_a_version_that_is_too_old(live_cluster: LiveCluster, api: client.CoreV1Api) -> None:
    """The events of one object fill the cache, so the events before them are no longer kept."""
    configmap = {"metadata": {"name": "often"}, "data": {"n": "0"}}
    made = api.create_namespaced_config_map("default", configmap)
    for number in range(1, 2050):
        api.patch_namespaced_config_map("often", "default", {"data": {"n": str(number)}})
    with pytest.raises(client.ApiException) as caught:
        version = made.metadata.resource_version
        stream = watch.Watch().stream(api.list_namespaced_config_map, "default", resource_version=version)
        next(iter(stream))
    assert caught.value.status == 410
    assert "too old resource version" in str(caught.value)
    api.delete_namespaced_config_map("often", "default")


def test_a_program_that_does_not_handle_sigterm_ends_at_once(live_cluster: LiveCluster) -> None:
    """On a real cluster, it takes the grace period."""
    kubectl(live_cluster, "run", "sleeps", "--image=busybox", "--restart=Never", "--", "sleep", "1000")
    kubectl(live_cluster, "wait", "--for=condition=Ready", "pod/sleeps", "--timeout=60s")
    kubectl(live_cluster, "delete", "pod", "sleeps", "--grace-period=3600")  # waits for the pod's end


def test_every_tag_of_a_known_image_exists(live_cluster: LiveCluster) -> None:
    kubectl(live_cluster, "run", "tagged", "--image=busybox:no-such-tag", "--restart=Never", "--", "echo", "ran")
    kubectl(live_cluster, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/tagged", "--timeout=60s")
    assert kubectl(live_cluster, "logs", "tagged") == "ran\n"
    (pulled,) = wait_for(lambda: events_of(live_cluster, "tagged", "Pulled"))
    assert pulled.endswith("It is replaced by a program of this machine.")
    kubectl(live_cluster, "delete", "pod", "tagged")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("runtimeClassName: nvidia", 'pods "p" is forbidden: pod rejected: RuntimeClass "nvidia" not found'),
        (
            "resourceClaims: [{name: gpu, resourceClaimTemplateName: t}]",
            'pods "p" is forbidden: spec.resourceClaims (gpu): the laptop AKS serves no resource claims. Request '
            "nvidia.com/gpu instead",
        ),
        (
            "ephemeralContainers: [{name: debug, image: busybox}]",
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
    ],
)
def test_a_pod_that_is_refused(live_cluster: LiveCluster, spec: str, message: str) -> None:
    body = POD.replace("NAME", "p").replace("SPEC", spec)
    assert message in kubectl(live_cluster, "create", "-f", "-", code=1, stdin=body)


def test_a_pod_for_another_scheduler_stays_pending(live_cluster: LiveCluster) -> None:
    body = POD.replace("NAME", "theirs").replace("SPEC", "schedulerName: volcano")
    kubectl(live_cluster, "create", "-f", "-", stdin=body)
    (message,) = wait_for(lambda: events_of(live_cluster, "theirs", "NoScheduler"))
    assert message.startswith("the laptop AKS runs no scheduler 'volcano', so the pod stays pending")
    assert "Pending" in kubectl(live_cluster, "get", "pod", "theirs")
    kubectl(live_cluster, "delete", "pod", "theirs")


def test_the_warning_about_the_daemon_set_of_2020(live_cluster: LiveCluster) -> None:
    output = kubectl(live_cluster, "create", "--dry-run=server", "-f", "-", stdin=DAEMON_SET_OF_2020)
    assert (
        "Warning: spec.template.metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in "
        'v1.16+; use the "priorityClassName" field instead'
    ) in output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("top", "nodes"), "Metrics API not available"),
        (("top", "pods"), "Metrics API not available"),
        (("create", "token", "default"), 'serviceaccounts "default" not found'),
        (("get", "deployments"), 'the server doesn\'t have a resource type "deployments"'),
        (("get", "runtimeclasses"), 'the server doesn\'t have a resource type "runtimeclasses"'),
        (("get", "resourceclaims"), 'the server doesn\'t have a resource type "resourceclaims"'),
    ],
)
def test_what_is_missing_says_so(live_cluster: LiveCluster, args: tuple[str, ...], message: str) -> None:
    assert message in kubectl(live_cluster, *args, code=1)


def test_ephemeral_containers_are_disabled(live_cluster: LiveCluster) -> None:
    kubectl(live_cluster, "run", "debugged", "--image=busybox", "--restart=Never", "--", "sleep", "100")
    kubectl(live_cluster, "wait", "--for=condition=Ready", "pod/debugged", "--timeout=60s")
    output = kubectl(live_cluster, "debug", "debugged", "--image=busybox", "--", "true", code=1)
    assert "ephemeral containers are disabled for this cluster" in output
    kubectl(live_cluster, "delete", "pod", "debugged")


def test_the_system_namespace_has_no_pods(live_cluster: LiveCluster) -> None:
    assert kubectl(live_cluster, "get", "pods", "-n", "kube-system") == "No resources found in kube-system namespace.\n"
    assert kubectl(live_cluster, "get", "serviceaccounts") == "No resources found in default namespace.\n"


def test_the_storage_classes_are_those_of_aks(live_cluster: LiveCluster) -> None:
    listed: dict[str, Any] = json.loads(kubectl(live_cluster, "get", "storageclasses", "-o", "json"))
    names = [each["metadata"]["name"] for each in listed["items"]]
    assert names == ["azurefile-csi", "azurefile-csi-premium", "default", "managed-csi", "managed-csi-premium"]
