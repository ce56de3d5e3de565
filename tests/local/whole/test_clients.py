"""The tutorial's Job with other clients on a complete laptop AKS: create, watch, read the log, delete."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import kr8s
import kr8s.objects
import lightkube
import pytest
import yaml
from kubernetes import client, config, dynamic, watch
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Pod
from support import recorded
from support.live_cluster import LiveCluster
from support.polling import wait_for
from support.remote_objects import RemoteObjects

from aksgpu import plugin
from aksgpu.local import Endpoint, inject

pytest_plugins = ["aksgpu.local.testing", "support.live_cluster"]

MANIFEST = (recorded.RECORDINGS / "manifests" / "samples-tf-mnist-demo.yaml").read_text().replace('"500"', '"20"')


def manifest(name: str) -> dict[str, Any]:
    """Return the tutorial's Job under another name. Its GPU count is a string, as the typed client requires."""
    job: dict[str, Any] = yaml.safe_load(MANIFEST.replace("samples-tf-mnist-demo\n", f"{name}\n"))
    limits = job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    limits["nvidia.com/gpu"] = str(limits["nvidia.com/gpu"])
    return job


@pytest.fixture(scope="module", autouse=True)
def gpu(live_cluster: LiveCluster) -> Iterator[None]:
    plugin.install(live_cluster.aks, timeout=60)
    yield
    plugin.remove(live_cluster.aks)


@pytest.fixture(scope="module")
def api(live_cluster: LiveCluster) -> client.ApiClient:
    return config.new_client_from_config(str(live_cluster.kubeconfig))


def test_typed(api: client.ApiClient) -> None:
    batch = client.BatchV1Api(api)
    core = client.CoreV1Api(api)
    created = batch.create_namespaced_job("default", manifest("typed"))
    assert created.spec.completions == 1
    stream = watch.Watch()
    for event in stream.stream(
        batch.list_namespaced_job, "default", field_selector="metadata.name=typed", timeout_seconds=60
    ):
        if any(each.type == "Complete" for each in event["object"].status.conditions or []):
            stream.stop()
    [pod] = core.list_namespaced_pod("default", label_selector="job-name=typed").items
    assert pod.status.container_statuses[0].state.terminated.exit_code == 0
    assert "Accuracy at step 10: " in core.read_namespaced_pod_log(pod.metadata.name, "default")

    def reasons() -> set[str]:
        events = core.list_namespaced_event("default", field_selector="involvedObject.name=typed").items
        return {event.reason for event in events}

    wait_for(lambda: "Completed" in reasons())  # It is recorded after the condition.
    assert reasons() == {"SuccessfulCreate", "Completed"}
    assert batch.read_namespaced_job("typed", "default").status.succeeded == 1
    batch.delete_namespaced_job("typed", "default", propagation_policy="Foreground")


def test_dynamic(api: client.ApiClient) -> None:
    dyn = dynamic.DynamicClient(api)
    jobs, pods = (dyn.resources.get(api_version=v, kind=k) for v, k in (("batch/v1", "Job"), ("v1", "Pod")))
    dyn.server_side_apply(jobs, body=manifest("dynamic"), namespace="default", field_manager="me")
    for event in jobs.watch(namespace="default", name="dynamic", timeout=60):
        if event["raw_object"].get("status", {}).get("succeeded"):
            break
    assert len(pods.get(namespace="default", label_selector="job-name=dynamic").items) == 1
    jobs.delete(name="dynamic", namespace="default", body={"propagationPolicy": "Background"})


def test_informer(api: client.ApiClient) -> None:
    informers = pytest.importorskip("kubernetes.informer")
    batch = client.BatchV1Api(api)
    complete = threading.Event()

    def see(job: Any) -> None:
        done = (job["status"] if isinstance(job, dict) else job.to_dict()["status"] or {}).get("succeeded")
        if done:
            complete.set()

    informer = informers.SharedInformer(list_func=batch.list_namespaced_job, namespace="default")
    for kind in ("ADDED", "MODIFIED"):  # A Job that is complete before the first list is only added.
        informer.add_event_handler(kind, see)
    informer.start()
    try:
        batch.create_namespaced_job("default", manifest("informed"))
        assert complete.wait(60)
    finally:
        informer.stop()
    batch.delete_namespaced_job("informed", "default", propagation_policy="Background")


def test_lightkube(live_cluster: LiveCluster) -> None:
    light = lightkube.Client(config=lightkube.KubeConfig.from_file(str(live_cluster.kubeconfig)))
    light.create(Job.from_dict(manifest("light")), namespace="default")
    light.wait(Job, "light", namespace="default", for_conditions=["Complete"])
    [pod] = light.list(Pod, namespace="default", labels={"job-name": "light"})
    assert any("Accuracy at step 10: " in line for line in light.log(pod.metadata.name, namespace="default"))
    light.delete(Job, "light", namespace="default", cascade=lightkube.types.CascadeType.BACKGROUND)


def test_kr8s(live_cluster: LiveCluster) -> None:
    api = kr8s.api(kubeconfig=str(live_cluster.kubeconfig))
    job = kr8s.objects.Job({**manifest("kr8s"), "metadata": {"name": "kr8s", "namespace": "default"}}, api=api)
    job.create()
    job.wait("condition=Complete", timeout=60)
    [pod] = api.get("pods", namespace="default", label_selector={"job-name": "kr8s"})
    assert "Accuracy at step 10: " in "\n".join(pod.logs())
    job.delete(propagation_policy="Background")
    wait_for(lambda: not job.exists())


async def test_the_controllers_own_client_over_tls(live_cluster: LiveCluster) -> None:
    async with RemoteObjects(live_cluster.server, token=live_cluster.token, ca_file=live_cluster.ca) as objects:
        nodes, version = await objects.list("nodes")
        assert nodes[0]["kind"] == "Node" and int(version) > 0


def test_an_api_server_that_has_not_loaded_its_roles(
    live_cluster: LiveCluster, laptop: Endpoint, api: client.ApiClient
) -> None:
    viewer = config.new_client_from_config(str(live_cluster.kubeconfig))
    viewer.set_default_header("Impersonate-User", "alice")
    role = client.V1RoleRef(api_group="rbac.authorization.k8s.io", kind="ClusterRole", name="view")
    subject = client.RbacV1Subject(kind="User", name="alice", api_group="rbac.authorization.k8s.io")
    binding = client.V1RoleBinding(metadata={"name": "alice-views"}, role_ref=role, subjects=[subject])
    roles = client.RbacAuthorizationV1Api(api)
    roles.create_namespaced_role_binding("default", binding)
    pods = client.CoreV1Api(viewer)
    try:
        pods.list_namespaced_pod("default")
        inject("rbac-not-loaded", seconds=600, home=laptop.home)
        with pytest.raises(client.ApiException) as raised:
            pods.list_namespaced_pod("default")
        assert raised.value.status == 403
        assert 'RBAC: [clusterrole.rbac.authorization.k8s.io \\"system:basic-user\\" not found' in raised.value.body
        client.CoreV1Api(api).list_namespaced_pod("default")  # The local administrator needs no role.
        inject("none", home=laptop.home)
        pods.list_namespaced_pod("default")
    finally:
        inject("none", home=laptop.home)
        roles.delete_namespaced_role_binding("alice-views", "default")
