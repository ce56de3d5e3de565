"""How a Job is made: its manifest, its name, and what is left when the launch is interrupted."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.fault_proxy import FaultProxy, always, no_answer
from support.polling import wait_for

from aksgpu import cluster, errors, jobs
from aksgpu.cluster import Cluster
from aksgpu.jobs import executor_arguments, executor_manifest, job_launch
from aksgpu.jobs.executor_options import ExecutorOptions
from aksgpu.payload import job_annotations

TIMEOUT = 120
HERE = Path(__file__).parent
LAUNCHING = job_annotations.LAUNCHING


def value(number: int) -> int:
    return number


def other_value(number: int) -> int:
    return number + 1


def main(manifest: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = manifest["spec"]["template"]["spec"]["containers"][0]
    return container


def env_of(container: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


def build(**options: Any) -> dict[str, Any]:
    checked = jobs.Executor(Cluster("unconnected"), **options).options
    return executor_manifest.build_manifest("name", "default", checked, ["payload"], environment_secret="values")


# The manifest


def test_the_manifest_has_what_each_pod_gets() -> None:
    manifest = build(gpus=2)
    spec = manifest["spec"]
    pod = spec["template"]["spec"]
    assert (spec["suspend"], spec["completionMode"], spec["backoffLimitPerIndex"]) == (True, "Indexed", 0)
    assert "activeDeadlineSeconds" not in spec
    assert pod["restartPolicy"] == "Never"
    assert main(manifest)["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert main(manifest)["image"].endswith(f"python:{sys.version_info.major}.{sys.version_info.minor}-slim")
    assert {"name": "aksgpu-shm", "emptyDir": {"medium": "Memory"}} in pod["volumes"]
    annotations = spec["template"]["metadata"]["annotations"]
    assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert annotations["karpenter.sh/do-not-disrupt"] == "true"
    variables = env_of(main(manifest))
    assert variables["PYTHONUNBUFFERED"] == "1"
    assert variables["COLUMNS"] == "200"
    assert variables["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"


def test_options_are_in_the_manifest() -> None:
    manifest = build(
        gpus=1,
        image="registry.example/train:1",
        env={"A": 1},
        secrets={"TOKEN": "hidden"},
        image_pull_secrets=["login"],
        cpu=3.5,
        memory="8Gi",
        shm="2Gi",
        timeout="2h",
        retries=2,
        service_account="trainer",
        node_selector={"disk": "fast"},
        vm_size="Standard_NC24ads_A100_v4",
        gpu_model="A100",
        spot=False,
        queue="team",
        priority="high",
        resources={"rdma/ib": 1},
        workdir="/work",
    )
    spec = manifest["spec"]
    pod = spec["template"]["spec"]
    container = main(manifest)
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert spec["backoffLimitPerIndex"] == 2
    assert pod["activeDeadlineSeconds"] > 7200
    assert pod["serviceAccountName"] == "trainer"
    assert pod["priorityClassName"] == "high"
    assert pod["imagePullSecrets"] == [{"name": "login"}]
    assert pod["nodeSelector"] == {"disk": "fast", "node.kubernetes.io/instance-type": "Standard_NC24ads_A100_v4"}
    terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert any("Standard_NC24ads_A100_v4" in each["values"] for each in terms[0]["matchExpressions"])
    assert all(term["matchExpressions"][-1]["operator"] == "NotIn" for term in terms)
    assert container["resources"]["requests"] == {"cpu": "3500m", "memory": "8Gi"}
    assert container["resources"]["limits"] == {"rdma/ib": "1", "nvidia.com/gpu": "1", "memory": "8Gi"}
    assert env_of(container)["A"] == "1"
    assert env_of(container)["TOKEN"] == {"secretKeyRef": {"name": "values", "key": "TOKEN"}}
    assert "hidden" not in str(manifest)
    assert {"name": "aksgpu-shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}} in pod["volumes"]


def test_spot_nodes_are_selected_and_tolerated() -> None:
    pod = build(spot=True)["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"kubernetes.azure.com/scalesetpriority": "spot"}
    assert pod["tolerations"][0]["key"] == "kubernetes.azure.com/scalesetpriority"


def test_the_image_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AKSGPU_IMAGE", "registry.example/own:1")
    assert main(build())["image"] == "registry.example/own:1"
    assert main(build(python="3.12"))["image"].endswith("python:3.12-slim")
    assert main(build(image="other:1"))["image"] == "other:1"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"gpus": -1}, "`gpus`"),
        ({"gpus": 1.5}, "`gpus`"),
        ({"nodes": 2}, "`nodes`"),
        ({"nodes": 0}, "`nodes`"),
        ({"processes": "gpu"}, "`processes`"),
        ({"image": "https://x"}, "`image`"),
        ({"python": "2.7"}, "`python`"),
        ({"python": "3.7"}, "`python`"),
        ({"python": 3.12}, "`python`"),
        ({"packages": "none.txt"}, "`packages`"),
        ({"packages": [None]}, "`packages"),
        ({"env": {"a b": 1}}, "`env`"),
        ({"env": {"AKSGPU_RUN": 1}}, "`env`"),
        ({"env": ["A"]}, "`env`"),
        ({"secrets": {"": 1}}, "`secrets`"),
        ({"secrets": [1.5j]}, "`secrets"),
        ({"image_pull_secrets": "UPPER"}, "`image_pull_secrets`"),
        ({"cpu": 0}, "`cpu`"),
        ({"memory": 8}, "`memory`"),
        ({"shm": "1"}, "`shm`"),
        ({"timeout": 0}, "`timeout`"),
        ({"timeout": "soon"}, "`timeout`"),
        ({"retries": -1}, "`retries`"),
        ({"mode": "json"}, "`mode`"),
        ({"mode": "pickle", "python": "3.8"}, "`mode`"),
        ({"name": "1st"}, "`name`"),
        ({"name": "a" * 51}, "`name`"),
        ({"name": "a.b"}, "`name`"),
        ({"name": "a", "replace": 1}, "`replace`"),
        ({"replace": True}, "`replace`"),
        ({"namespace": "A"}, "`namespace`"),
        ({"service_account": ""}, "`service_account`"),
        ({"node_selector": 1}, "`node_selector`"),
        ({"vm_size": "a b"}, "`vm_size`"),
        ({"gpu_model": "RX"}, "`gpu_model`"),
        ({"spot": 1}, "`spot`"),
        ({"queue": "a/b"}, "`queue`"),
        ({"priority": 5}, "`priority`"),
        ({"resources": {"rdma/ib": "x"}}, "`resources`"),
        ({"root": "/nowhere/at/all"}, "`root`"),
        ({"include": 5}, "`include`"),
        ({"workdir": "relative"}, "`workdir`"),
    ],
)
def test_wrong_options_are_named_before_anything_is_sent(options: dict[str, Any], named: str, aks: Cluster) -> None:
    with pytest.raises(errors.InvalidInput) as raised:
        jobs.Executor(aks, **options)
    assert raised.value.message.startswith(named)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"secrets": 5}, 'For example secrets=["training-1"].'),
        ({"image_pull_secrets": {"a"}}, 'For example image_pull_secrets=["training-1"].'),
        ({"volumes": {"/data": "A b"}}, "For example volumes['/data']='a-b'."),
    ],
)
def test_the_hint_has_a_value_of_the_options_kind(options: dict[str, Any], hint: str) -> None:
    with pytest.raises(errors.InvalidInput) as raised:
        jobs.Executor(Cluster("unconnected"), **options)
    assert raised.value.hint == hint


def test_the_executor_keeps_each_of_its_options() -> None:
    arguments = set(inspect.signature(jobs.Executor).parameters) - {"aks", "nodes", "processes"}
    fields = {field.name for field in dataclasses.fields(ExecutorOptions)}
    assert fields - {"interpreter", "secret_names"} == arguments


def test_a_wrong_name_gets_one_that_is_valid(aks: Cluster) -> None:
    with pytest.raises(errors.InvalidInput) as raised:
        jobs.Executor(aks, name="9 Lives!")
    proposal = raised.value.hint.split("'")[1]
    assert jobs.Executor(aks, name=proposal).options.name == proposal


def test_an_object_that_is_not_a_function_is_refused(cpu: jobs.Executor) -> None:
    with pytest.raises(errors.InvalidInput, match="`fn` must be a function"):
        cpu.submit(5)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(errors.InvalidInput, match=r"`fn` must be a function, got 'train\.py'") as raised:
        cpu.submit("train.py")  # type: ignore[arg-type]  # what is tested
    assert "gpu.script" in raised.value.hint


def test_a_map_of_an_object_that_is_not_iterable_is_refused(cpu: jobs.Executor) -> None:
    with pytest.raises(errors.InvalidInput, match=r"`iterables` must be .*, got 5 as number 2"):
        cpu.map(max, [1], 5)  # type: ignore[arg-type]  # what is tested


@pytest.mark.parametrize("what", ["train", "<lambda>", "_private", "1st", "Ünïcode", "a" * 300, "", "Train_Model"])
def test_generated_names_suit_host_names(what: str) -> None:
    name = job_launch.new_name(what)
    assert len(name) <= 50
    assert name[0].isalpha()
    assert executor_arguments.check_name(name) == name


def test_a_gpu_pod_reserves_its_share_of_the_node(aks: Cluster) -> None:
    job = jobs.Executor(aks, gpus=1, root=HERE).submit(value, 1)
    live = aks.kube.get("Job", job.name)
    requests = main(live)["resources"]["requests"]
    assert int(requests["cpu"].removesuffix("m")) > 1000
    assert int(requests["memory"].removesuffix("Mi")) > 1024
    assert job.result(TIMEOUT) == 1
    job.delete()


@pytest.mark.parametrize(
    ("options", "verdict", "fix"),
    [
        ({"gpus": 8}, "no node has 8 nvidia.com/gpu", "Ask for at most 1 for each pod"),
        ({"gpus": 1, "node_selector": {"disk": "none"}}, "no label disk=none", "Correct node_selector=, vm_size="),
    ],
)
def test_why_does_not_change_the_manifest_of_a_call(aks: Cluster, options: Any, verdict: str, fix: str) -> None:
    """The Secrets of the manifest are deleted with the Job, so the pod of a changed manifest could not start."""
    job = jobs.Executor(aks, root=HERE, **options).submit(value, 1)
    wait_for(lambda: verdict in job.why().verdict, TIMEOUT)
    found = job.why()
    assert found.fix.startswith(fix)
    assert not found.python
    assert "kubectl replace" not in found.shell
    job.delete()


# The same name again


@pytest.fixture
def named(aks: Cluster) -> Iterator[jobs.Executor]:
    yield jobs.Executor(aks, gpus=0, name="named", root=HERE)
    jobs.Job(aks, "named").delete()


def test_the_same_call_with_a_name_returns_the_job_that_exists(named: jobs.Executor, aks: Cluster) -> None:
    first = named.submit(value, 1)
    assert first.result(TIMEOUT) == 1
    uid = aks.kube.get("Job", "named")["metadata"]["uid"]
    assert named.submit(value, 1).result(TIMEOUT) == 1
    assert aks.kube.get("Job", "named")["metadata"]["uid"] == uid


def test_two_kernels_that_submit_under_one_name_get_one_job(named: jobs.Executor, aks: Cluster) -> None:
    with ThreadPoolExecutor(2) as pool:
        values = list(pool.map(lambda _: named.submit(value, 1).result(TIMEOUT), range(2)))
    assert values == [1, 1]
    uid = aks.kube.get("Job", "named")["metadata"]["uid"]
    # Secrets of an earlier Job of this name may still be removed.
    wait_for(lambda: owners_of_secrets(aks, "named") == {uid}, 60)


def owners_of_secrets(aks: Cluster, job: str) -> set[str]:
    secrets = aks.kube.list("Secret", label_selector=f"aksgpu.dev/executor={job}")
    return {secret["metadata"]["ownerReferences"][0]["uid"] for secret in secrets}


def test_another_call_with_the_same_name_is_refused(named: jobs.Executor, aks: Cluster) -> None:
    named.submit(value, 1)
    for function, number in ((other_value, 1), (value, 2)):
        with pytest.raises(
            errors.AlreadyExists, match=r"'named' (exists, has not ended, and runs|ended .*; it ran) value"
        ):
            named.submit(function, number)
    with pytest.raises(errors.AlreadyExists):
        jobs.Executor(aks, gpus=0, name="named", root=HERE, env={"A": 1}).submit(value, 1)


def test_an_old_run_is_returned_with_a_warning_or_replaced(named: jobs.Executor, aks: Cluster) -> None:
    first = named.submit(value, 1)
    uid = first._object()["metadata"]["uid"]
    first.wait(TIMEOUT)
    with pytest.warns(UserWarning, match="'named' ended .* and is complete. This is the old run") as warned:
        named.submit(value, 1)
    assert warned[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = jobs.Executor(aks, gpus=0, name="named", root=HERE, replace=False).submit(value, 1)
    assert again._object()["metadata"]["uid"] == uid
    with pytest.raises(errors.NotFound, match="no claim 'none'"):
        jobs.Executor(aks, gpus=0, name="named", root=HERE, replace=True, out="none").submit(value, 1)
    assert first._object()["metadata"]["uid"] == uid
    replacing = jobs.Executor(aks, gpus=0, name="named", root=HERE, replace=True)
    assert replacing.submit(value, 1).result(TIMEOUT) == 1
    assert first._object()["metadata"]["uid"] != uid
    assert replacing.submit(other_value, 1).result(TIMEOUT) == 2


def test_without_a_name_each_call_is_a_new_job(cpu: jobs.Executor) -> None:
    first = cpu.submit(value, 1)
    second = cpu.submit(value, 1)
    assert first.name != second.name
    assert first.name.startswith("value-")


def test_jobs_of_a_map_with_a_name_are_numbered(aks: Cluster) -> None:
    results = jobs.Executor(aks, gpus=0, name="points", root=HERE).map(value, [5, 6])
    assert [job.name for job in results.jobs] == ["points-0", "points-1"]
    assert repr(results) == "MapResults(0 of 2 results read)"
    assert list(results) == [5, 6]
    assert repr(results) == "MapResults(2 of 2 results read)"
    for job in results.jobs:
        job.delete()


def count(number: int) -> Iterator[int]:
    yield from range(number)


async def later(number: int) -> int:
    return number


@pytest.mark.parametrize(("function", "word"), [(count, "generator"), (later, "async")])
def test_functions_without_a_value_that_can_travel_are_refused(cpu: jobs.Executor, function: Any, word: str) -> None:
    for each in (function, functools.partial(function, 3)):
        with pytest.raises(
            errors.InvalidInput, match=f"`fn` must return its value, and {function.__name__} is an? {word}"
        ):
            cpu.submit(each, 3)


def supply(function: Any) -> Any:
    """Return the function with its argument supplied, as decorators of configuration libraries do."""

    @functools.wraps(function)
    def inner() -> Any:
        return function(7)

    return inner


@supply
def with_number(number: int) -> int:
    return number


def test_arguments_that_the_function_does_not_have_are_refused(cpu: jobs.Executor, aks: Cluster) -> None:
    before = len(jobs.list(aks))
    with pytest.raises(errors.InvalidInput, match=r"those of value\(.*got an unexpected keyword argument 'numbr'"):
        cpu.submit(value, 3, numbr=4)
    with pytest.raises(errors.InvalidInput, match="missing a required argument: 'number'"):
        cpu.submit(value)
    assert len(jobs.list(aks)) == before
    assert cpu.submit(max, 3, 4).result(TIMEOUT) == 4
    assert cpu.submit(with_number).result(TIMEOUT) == 7


def test_a_map_that_is_refused_deletes_only_what_it_created(aks: Cluster) -> None:
    gpu = jobs.Executor(aks, gpus=0, name="kept", root=HERE)
    before = gpu.map(value, [5, 6])
    assert list(before) == [5, 6]
    before.jobs[1].delete()
    other = jobs.Executor(aks, gpus=0, name="kept-2", root=HERE).submit(value, 9)
    with pytest.raises(errors.AlreadyExists):
        gpu.map(value, [5, 6, 7])
    assert before.jobs[0].result(TIMEOUT) == 5
    wait_for(lambda: aks.kube.find("Job", "kept-1") is None, 60)
    before.jobs[0].delete()
    other.delete()


# Interrupted launches


def test_a_quota_on_secrets_leaves_nothing_behind(aks: Cluster) -> None:
    aks.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "few"}})
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few", "namespace": "few"}}
    aks.kube.apply({**quota, "spec": {"hard": {"count/secrets": "0"}}})
    wait_for(lambda: (aks.kube.get("ResourceQuota", "few", "few").get("status") or {}).get("hard"), 60)
    with pytest.raises(errors.Forbidden, match="quota"):
        jobs.Executor(aks, gpus=0, namespace="few", root=HERE).submit(value, 1)
    wait_for(lambda: aks.kube.list("Job", "few") == [], 60)
    assert aks.kube.list("Pod", "few") == []


def test_an_interrupt_leaves_nothing_behind(aks: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []

    def interrupted(aks: Cluster, job: Any, options: Any) -> None:
        names.append(job["metadata"]["name"])
        raise KeyboardInterrupt

    # A real interrupt cannot be timed to come between two requests.
    monkeypatch.setattr(job_launch, "_start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        jobs.Executor(aks, gpus=0, root=HERE).map(value, [1, 2])
    wait_for(lambda: aks.kube.find("Job", names[0]) is None, 60)
    wait_for(lambda: not aks.kube.list("Secret", label_selector=f"aksgpu.dev/executor={names[0]}"), 60)


KILLED = """
import sys
from aksgpu import jobs
from aksgpu.kube import Kube

class Team:
    name = "team"
    kube = Kube.from_kubeconfig(sys.argv[1])

jobs.Executor(Team(), gpus=0, name=sys.argv[2]).submit(abs, -1)
"""


def kill_a_kernel_before_the_secrets(aks: Cluster, folder: Path, name: str) -> None:
    """Submit in another process, whose request for a Secret gets no answer, and kill that process then."""
    path = cluster.kubeconfig(aks)
    with FaultProxy.for_kubeconfig(path, always(no_answer(), path="secrets", method="POST")) as proxy:
        command = [sys.executable, "-c", KILLED, str(proxy.kubeconfig(folder)), name]
        process = subprocess.Popen(command, cwd=folder)
        wait_for(lambda: aks.kube.find("Job", name), 60)
        wait_for(lambda: any("secrets" in str(call) and "POST" in str(call) for call in proxy.calls), 60)
        process.send_signal(signal.SIGKILL)
        process.wait(60)


def test_a_kernel_that_is_killed_leaves_a_suspended_job_that_the_next_submit_replaces(
    aks: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_a_kernel_before_the_secrets(aks, tmp_path, "killed")
    left = aks.kube.get("Job", "killed")
    assert left["spec"]["suspend"]
    assert LAUNCHING in left["metadata"]["labels"]
    assert aks.kube.list("Pod", label_selector="batch.kubernetes.io/job-name=killed") == []
    monkeypatch.setattr(job_launch, "_OTHER_KERNEL_SECONDS", 0)
    job = jobs.Executor(aks, gpus=0, name="killed", root=HERE).submit(value, 3)
    assert job.result(TIMEOUT) == 3
    job.delete()


def test_an_abandoned_launch_is_removed_by_a_later_one(
    aks: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_a_kernel_before_the_secrets(aks, tmp_path, "abandoned")
    cpu = jobs.Executor(aks, gpus=0, root=HERE)
    cpu.submit(value, 1)
    assert aks.kube.find("Job", "abandoned") is not None
    monkeypatch.setattr(job_launch, "_ABANDONED", timedelta(0))
    cpu.submit(value, 1)
    wait_for(lambda: aks.kube.find("Job", "abandoned") is None, 60)


def test_kueue_starts_the_jobs_of_its_queues(aks: Cluster) -> None:
    job = jobs.Executor(aks, gpus=0, queue="team", root=HERE).submit(value, 1)
    live = aks.kube.get("Job", job.name)
    assert live["spec"]["suspend"]
    assert LAUNCHING not in live["metadata"]["labels"]
    aks.kube.patch("Job", job.name, {"spec": {"suspend": False}})
    assert job.result(TIMEOUT) == 1
