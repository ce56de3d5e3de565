"""Python clients: the typed, dynamic and informer parts of the official one, lightkube and kr8s."""

from __future__ import annotations

import threading
from typing import Any

import kr8s
import kr8s.objects
import lightkube
import pytest
import yaml
from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap, Namespace
from support.polling import wait_for
from support.recorded import RECORDINGS

from .conftest import Server

JOB = yaml.safe_load((RECORDINGS / "manifests" / "samples-tf-mnist-demo.yaml").read_text())


@pytest.fixture(scope="module")
def api(server: Server) -> client.ApiClient:
    return config.new_client_from_config(str(server.kubeconfig()))


def config_map(name: str, **data: str) -> client.V1ConfigMap:
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name), data=data)


def test_typed(api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    created = core.create_namespaced_config_map("default", config_map("typed", k="1"))
    assert created.metadata.uid
    core.patch_namespaced_config_map("typed", "default", {"data": {"k": "2"}})
    found = core.read_namespaced_config_map("typed", "default")
    assert found.data == {"k": "2"}
    found.data = {"k": "3"}
    assert core.replace_namespaced_config_map("typed", "default", found).data == {"k": "3"}
    listed = core.list_namespaced_config_map("default", limit=1)
    assert [item.metadata.name for item in listed.items] == ["typed"]
    core.delete_namespaced_config_map("typed", "default")
    with pytest.raises(ApiException) as caught:
        core.read_namespaced_config_map("typed", "default")
    assert caught.value.status == 404


def test_typed_job_and_pod(api: client.ApiClient) -> None:
    batch = client.BatchV1Api(api)
    core = client.CoreV1Api(api)
    manifest = yaml.safe_load(yaml.safe_dump(JOB))
    limits = manifest["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    limits["nvidia.com/gpu"] = str(limits["nvidia.com/gpu"])
    assert batch.create_namespaced_job("default", manifest).spec.backoff_limit == 6
    job = batch.read_namespaced_job_status("samples-tf-mnist-demo", "default")
    assert job.spec.template.spec.containers[0].resources.limits == {"nvidia.com/gpu": "1"}
    assert batch.delete_namespaced_job("samples-tf-mnist-demo", "default", propagation_policy="Background")
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "main", "image": "i"}]}}
    core.create_namespaced_pod("default", pod)
    binding = client.V1Binding(
        metadata=client.V1ObjectMeta(name="p"), target=client.V1ObjectReference(kind="Node", name="n")
    )
    core.create_namespaced_pod_binding("p", "default", binding, _preload_content=False)
    assert core.read_namespaced_pod("p", "default").spec.node_name == "n"
    core.delete_collection_namespaced_pod("default", grace_period_seconds=0, _preload_content=False)
    review = client.V1SelfSubjectAccessReview(
        spec=client.V1SelfSubjectAccessReviewSpec(
            resource_attributes=client.V1ResourceAttributes(verb="get", resource="pods")
        )
    )
    assert client.AuthorizationV1Api(api).create_self_subject_access_review(review).status.allowed
    assert client.VersionApi(api).get_code().git_version == "v1.36.2"


def test_typed_lists_of_every_kind(api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    assert {ns.metadata.name for ns in core.list_namespace().items} >= {"default", "kube-system"}
    assert core.list_node().items == []
    assert core.list_pod_for_all_namespaces().items == []
    assert core.list_event_for_all_namespaces().items == []
    assert client.AppsV1Api(api).list_daemon_set_for_all_namespaces().items == []
    assert len(client.SchedulingV1Api(api).list_priority_class().items) == 2
    assert client.CoordinationV1Api(api).list_namespaced_lease("kube-node-lease").items == []
    assert client.RbacAuthorizationV1Api(api).list_cluster_role().items is not None


def test_watch(api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    seen = []
    version = core.list_namespaced_config_map("default").metadata.resource_version
    for name in ("w1", "w2"):
        core.create_namespaced_config_map("default", config_map(name))
    core.delete_namespaced_config_map("w1", "default")
    stream = watch.Watch().stream(
        core.list_namespaced_config_map, "default", resource_version=version, timeout_seconds=1
    )
    for event in stream:
        seen.append((event["type"], event["object"].metadata.name))
    assert seen == [("ADDED", "w1"), ("ADDED", "w2"), ("DELETED", "w1")]


def test_dynamic(api: client.ApiClient) -> None:
    dyn = dynamic.DynamicClient(api)
    jobs = dyn.resources.get(api_version="batch/v1", kind="Job")
    applied = dyn.server_side_apply(jobs, body=JOB, namespace="default", field_manager="me")
    assert applied.spec.template.spec.containers[0].resources.limits["nvidia.com/gpu"] == "1"
    assert [job.metadata.name for job in jobs.get(namespace="default").items] == ["samples-tf-mnist-demo"]
    patch = {"spec": {"suspend": True}}
    patched = jobs.patch(
        body=patch, name="samples-tf-mnist-demo", namespace="default", content_type="application/merge-patch+json"
    )
    assert patched.spec.suspend is True
    jobs.delete(name="samples-tf-mnist-demo", namespace="default", body={"propagationPolicy": "Background"})
    assert jobs.get(namespace="default").items == []


def test_informer(server: Server, api: client.ApiClient) -> None:
    informer_module = pytest.importorskip("kubernetes.informer")
    core = client.CoreV1Api(api)
    added = threading.Event()
    # An informer that is stopped while it opens a watch waits for the end of the watch: here, for 5 seconds at most.
    informer: Any = informer_module.SharedInformer(core.list_namespaced_config_map, "default", resync_period=5)

    def on_add(obj: Any) -> None:
        metadata = obj["metadata"] if isinstance(obj, dict) else obj.metadata
        name = metadata["name"] if isinstance(metadata, dict) else metadata.name
        if name == "informed":
            added.set()

    informer.add_event_handler("ADDED", on_add)
    informer.start()
    try:
        wait_for(lambda: server.api._watch_count, 60)
        core.create_namespaced_config_map("default", config_map("informed"))
        assert added.wait(60)
    finally:
        informer.stop()


def test_lightkube(server: Server) -> None:
    light = lightkube.Client(config=lightkube.KubeConfig.from_file(str(server.kubeconfig())), field_manager="light")
    light.create(ConfigMap(metadata=ObjectMeta(name="light", namespace="default"), data={"a": "1"}))
    assert len(list(light.list(Namespace, chunk_size=2))) == 4
    assert light.patch(ConfigMap, "light", {"data": {"b": "2"}}, namespace="default").data == {"a": "1", "b": "2"}
    applied = ConfigMap(metadata=ObjectMeta(name="applied", namespace="default"), data={"a": "1"})
    assert light.apply(applied).metadata.uid
    events = light.watch(ConfigMap, namespace="default", fields={"metadata.name": "light"}, server_timeout=1)
    assert next(events)[0] == "ADDED"
    light.delete(ConfigMap, "light", namespace="default")
    light.deletecollection(ConfigMap, namespace="default")
    assert list(light.list(ConfigMap, namespace="default")) == []


def test_kr8s(server: Server) -> None:
    api = kr8s.api(kubeconfig=str(server.kubeconfig()))
    created = kr8s.objects.ConfigMap({"metadata": {"name": "k", "namespace": "default"}, "data": {"a": "1"}}, api=api)
    created.create()
    created.patch({"data": {"b": "2"}})
    created.label({"x": "y"})
    assert [each.name for each in api.get("configmaps", label_selector="x=y")] == ["k"]
    assert created.data == {"a": "1", "b": "2"}
    created.delete()
    assert not created.exists()
