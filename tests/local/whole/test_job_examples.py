"""The Kubernetes documentation's examples of Jobs with limits and policies, by kubectl and the official client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config
from support.live_cluster import LiveCluster, kubectls
from support.polling import wait_for

from aksgpu.waiting import wait_until

pytest_plugins = ["aksgpu.local.testing", "support.live_cluster"]

EXAMPLES = Path(__file__).parents[2] / "data" / "kubernetes-examples"
SUPPORTED = kubectls()

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="no kubectl on PATH")

Run = Callable[..., str]


@pytest.fixture(scope="module")
def batch(live_cluster: LiveCluster) -> client.BatchV1Api:
    return client.BatchV1Api(config.new_client_from_config(str(live_cluster.kubeconfig)))


@pytest.fixture(scope="module")
def core(live_cluster: LiveCluster) -> client.CoreV1Api:
    return client.CoreV1Api(config.new_client_from_config(str(live_cluster.kubeconfig)))


@pytest.fixture
def kubectl(live_cluster: LiveCluster) -> Run:
    """Run the newest kubectl, and return its output."""

    def run(*args: str) -> str:
        done = live_cluster.kubectl(SUPPORTED[-1], *args)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def created(kubectl: Run, request: pytest.FixtureRequest) -> Iterator[str]:
    """Create the Job of an example, and delete it afterwards. Return its name."""
    name = kubectl("create", "-f", str(EXAMPLES / f"{request.param}.yaml"), "-o", "name").strip()
    yield name.removeprefix("job.batch/")
    kubectl("delete", name, "--wait=false")


def example(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("created", [name], indirect=True)


def conditions(job: client.V1Job) -> list[tuple[str, str, str]]:
    return [(each.type, each.reason, each.message) for each in job.status.conditions]


def wait_for_pods(core: client.CoreV1Api, job: str, phase: str, count: int) -> list[Any]:
    """Wait until a Job has ``count`` pods in a phase that are not being deleted."""

    def poll() -> tuple[list[Any] | None, str]:
        found = core.list_namespaced_pod("default", label_selector=f"job-name={job}").items
        chosen = [pod for pod in found if pod.status.phase == phase and not pod.metadata.deletion_timestamp]
        return chosen if len(chosen) == count else None, f"{len(chosen)} of {len(found)} pods are {phase}"

    return wait_until(poll, f"{count} pods of {job} are {phase}", timeout=60, interval=0.1)


@example("job-backoff-limit-per-index-example")
def test_limit_per_index(kubectl: Run, batch: client.BatchV1Api, core: client.CoreV1Api, created: str) -> None:
    kubectl("wait", "--for=condition=Failed", f"job/{created}", "--timeout=60s")
    job = batch.read_namespaced_job(created, "default")
    assert (job.status.completed_indexes, job.status.failed_indexes) == ("1,3,5,7,9", "0,2,4,6,8")
    assert (job.status.succeeded, job.status.failed, job.spec.backoff_limit) == (5, 10, 2**31 - 1)
    ends = [(kind, "FailedIndexes", "Job has failed indexes") for kind in ("FailureTarget", "Failed")]
    assert conditions(job) == ends
    annotation = "batch.kubernetes.io/job-index-failure-count"
    pods = core.list_namespaced_pod("default", label_selector=f"job-name={created}").items
    assert sorted(pod.metadata.annotations[annotation] for pod in pods) == ["0"] * 10 + ["1"] * 5
    assert "Completed Indexes:  1,3,5,7,9" in kubectl("describe", "job", created)
    # The event is recorded after the condition.
    wait_for(lambda: "job-controller  Job has failed indexes" in kubectl("describe", "job", created))


@example("job-backoff-limit-per-index-failindex")
def test_fail_index(kubectl: Run, batch: client.BatchV1Api, created: str) -> None:
    kubectl("wait", "--for=condition=Failed", f"job/{created}", "--timeout=60s")
    job = batch.read_namespaced_job(created, "default")
    assert (job.status.completed_indexes, job.status.failed_indexes) == ("2,3", "0,1")
    assert (job.status.succeeded, job.status.failed) == (2, 3)
    assert conditions(job)[-1] == ("Failed", "FailedIndexes", "Job has failed indexes")


def test_success_policy(kubectl: Run, batch: client.BatchV1Api) -> None:
    path = str(EXAMPLES / "job-success-policy.yaml")

    def poll() -> tuple[client.V1Job | None, str]:
        job = batch.read_namespaced_job("job-success", "default")
        ended = [each.type for each in job.status.conditions or [] if each.type in ("Complete", "Failed")]
        return job if ended else None, str(job.status.conditions)

    try:
        for _ in range(5):
            kubectl("create", "-f", path)
            job = wait_until(poll, "job-success has ended", timeout=60, interval=0.1)
            if conditions(job)[-1][:2] != ("Failed", "BackoffLimitExceeded"):
                break
            # Nine of its pods fail. If more than six have done so before the third one succeeds, the Job fails.
            kubectl("delete", "-f", path)
        assert (job.status.succeeded, job.status.completed_indexes) == (1, "2")
        ends = [(kind, "SuccessPolicy", "Matched rules at index 0") for kind in ("SuccessCriteriaMet", "Complete")]
        assert conditions(job) == ends
    finally:
        kubectl("delete", "-f", path, "--ignore-not-found")


@example("job-pod-failure-policy-config-issue")
def test_policy_on_a_condition(kubectl: Run, batch: client.BatchV1Api, core: client.CoreV1Api, created: str) -> None:
    pod = wait_for_pods(core, created, "Pending", 2)[0].metadata.name
    patch = '{"status":{"conditions":[{"type":"ConfigIssue","status":"True","reason":"NonExistingImage"}]}}'
    kubectl("patch", "pod", pod, "--subresource=status", "-p", patch)
    kubectl("delete", "pod", pod, "--wait=false")
    kubectl("wait", "--for=condition=Failed", f"job/{created}", "--timeout=60s")
    message = f"Pod default/{pod} has condition ConfigIssue matching FailJob rule at index 0"
    assert conditions(batch.read_namespaced_job(created, "default"))[-1] == ("Failed", "PodFailurePolicy", message)


@example("job-pod-failure-policy-ignore")
def test_policy_on_a_disruption(kubectl: Run, batch: client.BatchV1Api, core: client.CoreV1Api, created: str) -> None:
    pods = wait_for_pods(core, created, "Running", 2)
    node = pods[0].spec.node_name
    kubectl("drain", f"nodes/{node}", "--ignore-daemonsets", "--grace-period=0", "--force", "--timeout=60s")
    kubectl("uncordon", f"nodes/{node}")
    others = wait_for_pods(core, created, "Running", 2)
    assert not {pod.metadata.uid for pod in others} & {pod.metadata.uid for pod in pods}
    status = batch.read_namespaced_job(created, "default").status
    assert (status.failed, status.conditions, status.active) == (None, None, 2)


@pytest.mark.slow
@example("job-pod-failure-policy-failjob")
def test_policy_on_an_exit_code(kubectl: Run, batch: client.BatchV1Api, created: str) -> None:
    kubectl("wait", "--for=condition=Failed", f"job/{created}", "--timeout=55s")
    kind, reason, message = conditions(batch.read_namespaced_job(created, "default"))[-1]
    assert (kind, reason) == ("Failed", "PodFailurePolicy")
    assert message.startswith("Container main for pod default/") and message.endswith(
        " failed with exit code 42 matching FailJob rule at index 0"
    )
