"""Manifests as people have them: each is applied, or explained with what to do instead.

The files in ``tests/data/manifests`` are small manifests of our own in the forms that users, NVIDIA, Kubeflow and KAITO
publish.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.polling import wait_for

from aksgpu import errors, jobs, manifests
from aksgpu.cluster import Cluster
from aksgpu.jobs import Job

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]

CASES = Path(__file__).parent / "data" / "manifests"
BUSYBOX = "docker.io/library/busybox:1"
PATIENCE = 120


def case(name: str) -> Path:
    return CASES / f"{name}.yaml"


@pytest.fixture
def delete(aks: Cluster) -> Iterator[list[Job]]:
    """A list to which a test adds the Jobs that it made; they are deleted afterwards."""
    made: list[Job] = []
    yield made
    for job in made:
        job.delete()


def refused(aks: Cluster, manifest: Any) -> errors.InvalidInput:
    with pytest.raises(errors.InvalidInput) as raised:
        jobs.apply(aks, manifest)
    return raised.value


def applied_with_warning(aks: Cluster, manifest: Any, delete: list[Job]) -> tuple[Job, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        job = jobs.apply(aks, manifest)
    delete.append(job)
    return job, [str(each.message) for each in caught if each.category is UserWarning]


def pod_of(aks: Cluster, job: Job) -> Any:
    """A pod of a Job, once there is one."""
    return wait_for(
        lambda: next(iter(aks.kube.list("Pod", job.namespace, label_selector=f"job-name={job.name}")), None),
        timeout=PATIENCE,
    )


# Several objects in a file


def test_the_service_of_an_indexed_job_is_applied_before_it(
    aks: Cluster, delete: list[Job], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AKSGPU_PROGRESS", raising=False)
    job = jobs.apply(aks, case("indexed-torchrun"))
    delete.append(job)
    assert job.applied == ("Service train-svc",)
    assert "Applied Service train-svc." in capsys.readouterr().out
    job.wait(PATIENCE, progress=False)
    text = job.logs()
    assert "0 train-0.train-svc train-0" in text
    assert "1 train-0.train-svc train-1" in text
    assert text.count("resolved ") == 2
    again = jobs.apply(aks, case("indexed-torchrun"), replace=False)
    assert again.applied == ("Service train-svc",)


MANY = f"""
apiVersion: batch/v1
kind: Job
metadata: {{name: with-others, namespace: others}}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: main
        image: {BUSYBOX}
        command: [cat, /config/text]
        volumeMounts: [{{name: c, mountPath: /config}}]
      volumes: [{{name: c, configMap: {{name: settings}}}}]
---
apiVersion: v1
kind: Namespace
metadata: {{name: others}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: settings}}
data: {{text: from the file}}
"""


def test_objects_after_the_job_are_applied_first_and_in_its_namespace(aks: Cluster) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            job = jobs.apply(aks, MANY)
        assert job.applied == ("Namespace others", "ConfigMap settings")
        assert job.wait(PATIENCE, progress=False).logs() == "from the file\n"
        with pytest.raises(errors.AlreadyExists):
            jobs.apply(aks, MANY.replace("[cat, /config/text]", "[cat]").replace("from the file", "changed"))
        assert aks.kube.get("ConfigMap", "settings", "others")["data"] == {"text": "from the file"}
    finally:
        aks.kube.delete("Namespace", "others")


def test_nothing_is_applied_if_the_cluster_lacks_a_kind(aks: Cluster) -> None:
    queue = "\n---\napiVersion: kueue.x-k8s.io/v1beta1\nkind: LocalQueue\nmetadata: {name: q}\n"
    with pytest.raises(errors.NotFound, match=r"no kind LocalQueue of kueue.x-k8s.io/v1beta1; nothing was") as raised:
        jobs.apply(aks, MANY.replace("others", "not-made") + queue)
    assert "helm install kueue" in raised.value.hint
    assert aks.kube.find("Namespace", "not-made") is None


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("kind: Service\nmetadata: {name: a}", "apiVersion in each object, got Service without it"),
        ("apiVersion: v1\nkind: Service\nmetadata: {}", r"metadata\.name in each object, got Service without it"),
        ("apiVersion: v1\nmetadata: {name: a}", "kind in each object"),
    ],
)
def test_another_object_that_is_incomplete_is_refused(aks: Cluster, extra: str, words: str) -> None:
    assert refused(aks, f"{case('podfailurepolicy-spot').read_text()}\n---\n{extra}\n").hint
    with pytest.raises(errors.InvalidInput, match=words):
        jobs.apply(aks, f"{case('podfailurepolicy-spot').read_text()}\n---\n{extra}\n")


# Objects that are no Job


@pytest.mark.parametrize(
    ("name", "message", "hints"),
    [
        ("vectoradd-pod-runtimeclass", "got Pod", ("manifests.as_jobs(manifest)", "kubectl apply")),
        ("cronjob-gpu", "got CronJob", ("manifests.as_jobs(manifest)", "--from=cronjob/nightly-training")),
        (
            "pytorchjob",
            "got PyTorchJob; the cluster has no kind PyTorchJob: Kubeflow's training operator is not installed",
            ("jobs.apply(aks, manifests.as_jobs(manifest))", "training-operator.git"),
        ),
        (
            "kaito-workspace",
            "got Workspace; the cluster has no kind Workspace: KAITO",
            ("--enable-ai-toolchain-operator", "jobs.submit(aks", "jobs.get(aks, name)"),
        ),
        ("nvidia-plugin-cpumanager", "got DaemonSet", ("plugin.install(aks, manifest=manifest)",)),
        ("time-slicing", "got ConfigMap, DaemonSet", ("plugin.install(aks, manifest=manifest)",)),
        ("volcano-job", "got Job of batch.volcano.sh/v1alpha1; the cluster has no kind Job", ("helm install volcano",)),
        ("kustomization", "got Kustomization", ("kubectl kustomize DIRECTORY > job.yaml",)),
    ],
)
def test_another_kind_is_explained(aks: Cluster, name: str, message: str, hints: tuple[str, ...]) -> None:
    error = refused(aks, case(name))
    assert message in error.message
    for hint in hints:
        assert hint in error.hint


@pytest.mark.parametrize(
    ("version", "kind", "hint"),
    [
        ("batch.volcano.sh/v1alpha1", "Job", "helm install volcano"),
        ("ray.io/v1", "RayJob", "kuberay-operator"),
        ("trainer.kubeflow.org/v1alpha1", "TrainJob", "kubeflow/trainer.git"),
        ("jobset.x-k8s.io/v1alpha2", "JobSet", "kubernetes-sigs/jobset"),
        ("argoproj.io/v1alpha1", "Workflow", "argo-workflows"),
        ("nvidia.com/v1", "ClusterPolicy", "helm install gpu-operator"),
        ("karpenter.sh/v1", "NodePool", "--node-provisioning-mode Auto"),
        ("example.com/v1", "Training", "kubectl api-resources"),
        ("v1", "Service", "aks.kube.apply(obj)"),
    ],
)
def test_kinds_of_other_programs_say_what_to_install(aks: Cluster, version: str, kind: str, hint: str) -> None:
    error = refused(aks, {"apiVersion": version, "kind": kind, "metadata": {"name": "x"}})
    assert f"got {kind}" in error.message
    assert hint in error.hint


def test_a_pod_runs_as_a_job(aks: Cluster, delete: list[Job]) -> None:
    (obj,) = manifests.as_jobs(case("vectoradd-pod-runtimeclass"))
    spec = obj["spec"]["template"]["spec"]
    assert (obj["kind"], obj["metadata"]["name"]) == ("Job", "gpu-test-vector-add")
    assert spec.pop("runtimeClassName") == "nvidia", "the cluster does not have this class"
    spec["containers"][0] |= {"image": BUSYBOX, "command": ["echo", "Test PASSED"]}
    job = jobs.apply(aks, obj)
    delete.append(job)
    assert job.wait(PATIENCE, progress=False).logs() == "Test PASSED\n"


def test_a_cron_job_and_a_training_job_become_jobs(aks: Cluster, delete: list[Job]) -> None:
    (nightly,) = manifests.as_jobs(case("cronjob-gpu"))
    job = jobs.apply(aks, nightly)
    delete.append(job)
    assert job.wait(PATIENCE, progress=False).logs() == "hi\n"
    (training,) = manifests.as_jobs(case("pytorchjob"))
    spec = training["spec"]["template"]["spec"]
    assert training["metadata"] == {"name": "pytorch-simple", "namespace": "default"}
    assert spec["restartPolicy"] == "OnFailure"
    assert spec["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": 1}}


def test_what_cannot_become_a_job_says_why() -> None:
    training = yaml.safe_load(case("pytorchjob").read_text())
    training["spec"]["pytorchReplicaSpecs"]["Worker"] = {"replicas": 2, "template": {"spec": {"containers": []}}}
    with pytest.raises(errors.InvalidInput, match="must have one replica to become a Job, got Master 1, Worker 2"):
        manifests.as_jobs(training)
    with pytest.raises(errors.InvalidInput, match=r"`spec\.template` must be a mapping, got None"):
        manifests.as_jobs({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {}})
    deployment = {"template": {"spec": {"restartPolicy": "Always", "containers": [{"name": "main", "image": BUSYBOX}]}}}
    (made,) = manifests.as_jobs({"kind": "Deployment", "metadata": {"generateName": "train-"}, "spec": deployment})
    assert made["metadata"] == {"name": "train"}
    assert made["spec"]["template"]["spec"]["restartPolicy"] == "Never"


# Fields


def test_a_missing_restart_policy_is_named_and_anchors_are_resolved(aks: Cluster) -> None:
    with pytest.raises(errors.Invalid, match=r"restartPolicy: Required value.*\"OnFailure\", \"Never\"") as raised:
        jobs.apply(aks, case("anchors-restart-missing"))
    assert 'Job.batch "anchors"' in raised.value.message


def test_a_part_of_a_gpu_is_refused_with_the_field(aks: Cluster) -> None:
    error = refused(aks, case("fractional-gpu"))
    assert "`spec.template.spec.containers[0].resources.limits`: nvidia.com/gpu must be an integer" in error.message
    assert "MIG" in error.hint


def test_the_old_name_of_gpus_is_replaced(aks: Cluster) -> None:
    text = case("cronjob-gpu").read_text().replace("nvidia.com/gpu", "alpha.kubernetes.io/nvidia-gpu")
    (obj,) = manifests.as_jobs(text)
    error = refused(aks, obj)
    assert "got alpha.kubernetes.io/nvidia-gpu, which no node has" in error.message
    assert "limits: {nvidia.com/gpu: 1}" in error.hint


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("helm-template", "is not YAML that can be used", "helm template NAME CHART"),
        ("tabs", "is not YAML that can be used", "spaces instead of the tabs"),
        (
            "resources-of-the-pod",
            "`spec.template.spec.resources` must not name GPUs: only containers have them",
            "Indent `resources` like the container's `name`",
        ),
        (
            "tolerations-in-container",
            "containers[0].tolerations` must be in the pod's spec, `spec.template.spec.tolerations`",
            "Indent it like `containers`.",
        ),
        (
            "gpu-requests-only",
            "containers[0].resources.limits` must have as many nvidia.com/gpu as the requests, 1, got none",
            "limits: {nvidia.com/gpu: 1}",
        ),
    ],
)
def test_a_slip_is_named_with_its_correction(aks: Cluster, name: str, message: str, hint: str) -> None:
    error = refused(aks, case(name))
    assert message in error.message
    assert hint in error.hint


@pytest.mark.parametrize(("name", "hint"), [("${JOB_NAME}", "envsubst"), ("{{ .Release.Name }}-a", "helm template")])
def test_a_template_that_is_not_filled_in(aks: Cluster, name: str, hint: str) -> None:
    manifest = yaml.safe_load(case("podfailurepolicy-spot").read_text())
    manifest["metadata"]["name"] = name
    error = refused(aks, manifest)
    assert f"`metadata.name` must be a name, got the placeholder {name!r}" in error.message
    assert hint in error.hint


def test_a_boolean_in_a_node_selector_is_named(aks: Cluster) -> None:
    manifest = yaml.safe_load(case("podfailurepolicy-spot").read_text())
    manifest["spec"]["template"]["spec"]["nodeSelector"] = {"gpu": True}
    error = refused(aks, manifest)
    assert "`spec.template.spec.nodeSelector` must be a mapping of strings, got {'gpu': True}" in error.message
    assert 'in quotes, such as "1" and "true"' in error.hint


def test_an_image_beside_the_containers_is_named(aks: Cluster) -> None:
    manifest = yaml.safe_load(case("podfailurepolicy-spot").read_text())
    manifest["spec"]["template"]["spec"]["image"] = BUSYBOX
    assert "`spec.template.spec.image` must be in a container" in refused(aks, manifest).message


@pytest.mark.parametrize(
    ("resources", "path"),
    [("small", "resources"), (["limits"], "resources"), ({"limits": "small"}, "resources.limits")],
)
def test_resources_of_the_pod_that_are_not_a_mapping(aks: Cluster, resources: object, path: str) -> None:
    manifest = yaml.safe_load(case("podfailurepolicy-spot").read_text())
    manifest["spec"]["template"]["spec"]["resources"] = resources
    assert f"`spec.template.spec.{path}` must be a mapping, got" in refused(aks, manifest).message


def test_lines_of_windows_are_read(aks: Cluster, delete: list[Job]) -> None:
    job = jobs.apply(aks, case("windows-lines"))
    delete.append(job)
    assert job.wait(PATIENCE, progress=False).logs() == "hi\n"


def test_a_job_that_was_copied_from_a_cluster_runs_again(aks: Cluster, delete: list[Job]) -> None:
    job = jobs.apply(aks, case("copied-from-cluster"))
    delete.append(job)
    assert job.wait(PATIENCE, progress=False).logs() == "hi\n"
    assert aks.kube.get("Job", job.name, job.namespace)["metadata"]["uid"] != "5b0c1c1e-0000-0000-0000-000000000001"


def test_a_generated_name_is_explained_with_code(aks: Cluster, delete: list[Job]) -> None:
    manifest = yaml.safe_load(case("podfailurepolicy-spot").read_text())
    manifest["metadata"] = {"generateName": "spot-"}
    assert 'jobs.get(aks, aks.kube.create(manifest)["metadata"]["name"])' in refused(aks, manifest).hint
    job = jobs.get(aks, aks.kube.create(manifest)["metadata"]["name"])
    delete.append(job)
    assert job.name.startswith("spot-")


def test_indexes_fail_by_themselves(aks: Cluster, delete: list[Job]) -> None:
    job = jobs.apply(aks, case("podfailurepolicy-spot"))
    delete.append(job)
    with pytest.raises(errors.JobFailed):
        job.wait(PATIENCE, progress=False)
    status = aks.kube.get("Job", job.name, job.namespace)["status"]
    assert status["failedIndexes"] == "0,1"


def test_five_pods_take_turns_on_one_gpu(aks: Cluster, delete: list[Job]) -> None:
    manifest = yaml.safe_load(case("hostipc-parallel").read_text())
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    container |= {"image": BUSYBOX, "command": ["echo", "done"], "args": []}
    job = jobs.apply(aks, manifest)
    delete.append(job)
    job.wait(PATIENCE, progress=False)
    assert aks.kube.get("Job", job.name, job.namespace)["status"]["succeeded"] == 5


# Objects that the pods wait for


def test_claims_of_dynamic_resource_allocation_are_explained(aks: Cluster, delete: list[Job]) -> None:
    job, sentences = applied_with_warning(aks, case("dra-job"), delete)
    (sentence,) = sentences
    assert "resourceClaims[0].resourceClaimTemplateName" in sentence
    assert "limits: {nvidia.com/gpu: 1}" in sentence
    events = wait_for(
        lambda: [
            event["message"]
            for event in aks.kube.list("Event", "default")
            if event["reason"] == "FailedCreate" and event["involvedObject"]["name"] == job.name
        ],
        timeout=PATIENCE,
    )
    assert any("resourceClaims" in message for message in events)


def test_an_inline_azure_file_is_never_left_out_silently(aks: Cluster, delete: list[Job]) -> None:
    job, sentences = applied_with_warning(aks, case("azurefile-inline"), delete)
    assert len(sentences) == 2
    assert "volumes[0].azureFile.secretName` names the Secret 'azure-secret'" in sentences[0]
    assert "kubectl create secret generic azure-secret --from-literal=azurestorageaccountname" in sentences[0]
    name = pod_of(aks, job)["metadata"]["name"]
    assert wait_for(
        lambda: [
            event
            for event in aks.kube.list("Event", "default", field_selector=f"involvedObject.name={name}")
            if "azureFile" in event["message"]
        ],
        timeout=PATIENCE,
    )
    assert job.status().phase == "Pending"


NEEDS = {
    "priorityClassName: gold": "PriorityClass 'gold'",
    "serviceAccountName: trainer": "ServiceAccount 'trainer'",
    "volumes: [{name: d, persistentVolumeClaim: {claimName: data}}]": "PersistentVolumeClaim 'data'",
    "volumes: [{name: d, secret: {secretName: key}}]": "Secret 'key'",
    "volumes: [{name: d, configMap: {name: settings}}]": "ConfigMap 'settings'",
    "volumes: [{name: d, secret: {secretName: key, optional: true}}]": "",
    "priorityClassName: system-node-critical": "",
    "serviceAccountName: default": "",
    "runtimeClassName: nvidia": "",
}
"""Fields of a pod's spec, with the object that is missing; empty where nothing is."""


@pytest.mark.parametrize("field", NEEDS)
def test_an_object_that_the_pods_wait_for_is_named(aks: Cluster, delete: list[Job], field: str) -> None:
    manifest = yaml.safe_load(case("podfailurepolicy-spot").read_text())
    manifest["metadata"]["name"] = f"needs-{list(NEEDS).index(field)}"
    manifest["spec"]["template"]["spec"] |= yaml.safe_load(field)
    _, sentences = applied_with_warning(aks, manifest, delete)
    assert len(sentences) == bool(NEEDS[field])
    assert not sentences or (NEEDS[field] in sentences[0] and "In a shell: kubectl" in sentences[0])


def test_a_job_for_another_scheduler_is_not_run_by_the_default_one(aks: Cluster, delete: list[Job]) -> None:
    job = jobs.apply(aks, case("scheduler-name"))
    delete.append(job)
    pod = pod_of(aks, job)
    other = jobs.submit(aks, image=BUSYBOX, command=["true"], gpus=0, name="after-kai-job")
    delete.append(other)
    other.wait(PATIENCE, progress=False)
    # The scheduler has placed a later pod by now.
    assert "nodeName" not in aks.kube.get("Pod", pod["metadata"]["name"], job.namespace)["spec"]
