"""Each call to the cluster continues after each temporary fault, and a write is executed once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from scripted import Request, Server
from support import fault_proxy as faults
from support.fault_proxy import Fault, FaultProxy

from aksgpu import capacity, cluster, diagnose, errors, jobs, plugin, waiting
from aksgpu.cluster import Cluster
from aksgpu.kube import Kube, retry_policy, transport

pytest_plugins = ["aksgpu.local.testing", "support.laptop_cluster"]

FAULTS: dict[str, Fault] = {
    "500": faults.etcd_hangs(),
    "502": faults.status(502, "bad gateway"),
    "503": faults.status(503),
    "504": faults.status(504, "gateway timeout"),
    "429": faults.status(429, retry_after=0),
    "401": faults.unauthorized(),
    "403 without roles": faults.rbac_not_ready(),
    "no answer": faults.no_answer(),
    "cut at 0": faults.cut(0),
    "cut at 9": faults.cut(9),
    "end at 0": faults.early_end(0),
    "truncated": faults.early_end(9),
    "silent": faults.half_open(None),
    "silent at 9": faults.half_open(9),
    "refused": faults.refused(0.2),
}
SHORT_SILENCE = 1.0
"""Seconds after which silence is noticed."""
QUICK = ("500", "no answer")
"""Faults that every run tries on every call. The others are slow tests."""


class Stub(NamedTuple):
    """A minimal cluster: a name and an API."""

    name: str
    kube: Kube


@pytest.fixture(autouse=True)
def impatient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses, and silence that is noticed soon by the tests whose fault is silence."""
    monkeypatch.setattr(retry_policy, "FIRST_PAUSE", 0.02)
    if is_silence(request):
        monkeypatch.setattr(transport, "READ_TIMEOUT", SHORT_SILENCE)


def is_silence(request: pytest.FixtureRequest) -> bool:
    """Return whether the fault of a test is silence."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    return str(parameters.get("fault")).startswith("silent")


@pytest.fixture
def proxy(aks: Cluster) -> Iterator[FaultProxy]:
    with FaultProxy.for_kubeconfig(cluster.kubeconfig(aks), seed=8) as made:
        yield made


@pytest.fixture
def behind(proxy: FaultProxy, tmp_path: Path) -> Stub:
    """The cluster behind the fault proxy."""
    return Stub("behind", Kube.from_kubeconfig(proxy.kubeconfig(tmp_path)))


@pytest.fixture(scope="module")
def ended(aks: Cluster) -> Iterator[jobs.Job]:
    """A Job that has ended, with its pod."""
    job = jobs.submit(aks, image="busybox", command=["sh", "-c", "echo hi"], gpus=0, name="faults-ended")
    yield job.wait(60)
    job.delete()


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


def suspended(**metadata: str) -> dict[str, Any]:
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}
    spec = {"suspend": True, "template": {"spec": pod}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


# What each call must do, whatever fault occurs. `sure` is the cluster without faults.


def get(behind: Stub, sure: Kube) -> None:
    assert behind.kube.get("Namespace", "default")["metadata"]["name"] == "default"


def find(behind: Stub, sure: Kube) -> None:
    assert behind.kube.find("Namespace", "default")
    assert behind.kube.find("Namespace", "nope") is None


def listed(behind: Stub, sure: Kube) -> None:
    assert "default" in behind.kube.list("Namespace", pick=lambda obj: obj["metadata"]["name"])


def discovered(behind: Stub, sure: Kube) -> None:
    assert behind.kube.list("Lease", "kube-node-lease")


def watched(behind: Stub, sure: Kube) -> None:
    events = behind.kube.watch("Namespace", field_selector="metadata.name=default", timeout=60)
    change, obj = next(events)
    assert (change, obj["metadata"]["name"]) == ("ADDED", "default")


def created(behind: Stub, sure: Kube) -> None:
    made = behind.kube.create(config_map("created", a="1"))
    assert made["metadata"]["uid"] == sure.get("ConfigMap", "created")["metadata"]["uid"]
    with pytest.raises(errors.AlreadyExists):
        behind.kube.create(config_map("created", a="1"))
    sure.delete("ConfigMap", "created")


def created_with_a_generated_name(behind: Stub, sure: Kube) -> None:
    obj = config_map("x")
    obj["metadata"] = {"generateName": "generated-", "namespace": "default"}
    name = behind.kube.create(obj)["metadata"]["name"]
    assert "name" not in obj["metadata"]
    found = sure.list("ConfigMap", "default", pick=lambda each: each["metadata"]["name"])
    assert [each for each in found if each.startswith("generated-")] == [name]
    sure.delete("ConfigMap", name)


def applied(behind: Stub, sure: Kube) -> None:
    behind.kube.apply(config_map("applied", a="1"))
    assert behind.kube.apply(config_map("applied", a="2"))["data"] == {"a": "2"}
    sure.delete("ConfigMap", "applied")


def patched(behind: Stub, sure: Kube) -> None:
    sure.apply(config_map("patched", a="1"))
    assert behind.kube.patch("ConfigMap", "patched", {"data": {"a": "2"}})["data"] == {"a": "2"}
    sure.delete("ConfigMap", "patched")


def deleted(behind: Stub, sure: Kube) -> None:
    sure.apply(config_map("deleted"))
    behind.kube.delete("ConfigMap", "deleted")
    assert sure.find("ConfigMap", "deleted") is None
    with pytest.raises(errors.NotFound):
        behind.kube.delete("ConfigMap", "deleted")


def requested(behind: Stub, sure: Kube) -> None:
    assert behind.kube.request("GET", "/version")["gitVersion"]


def submitted(behind: Stub, sure: Kube) -> None:
    job = jobs.apply(behind, suspended(name="submitted"))
    before = sure.get("Job", "submitted")["metadata"]["uid"]
    assert jobs.apply(behind, suspended(name="submitted")).name == job.name
    jobs.apply(behind, suspended(name="submitted"), replace=True)
    assert sure.get("Job", "submitted")["metadata"]["uid"] != before
    job.delete()
    assert sure.find("Job", "submitted") is None
    job.delete()


def attached(behind: Stub, sure: Kube) -> None:
    assert jobs.get(behind, "faults-ended").status().phase == "Complete"
    with pytest.raises(errors.NotFound, match="Job 'nope' does not exist"):
        jobs.get(behind, "nope")


def jobs_listed(behind: Stub, sure: Kube) -> None:
    assert "faults-ended" in jobs.list(behind)["job"].tolist()


def waited(behind: Stub, sure: Kube) -> None:
    job = jobs.Job(behind, "faults-ended", namespace="default")
    assert job.wait(60) is job
    assert job.pods()["exit_code"].isna().all()


def explained(behind: Stub, sure: Kube) -> None:
    assert diagnose.job(behind, "faults-ended").verdict
    pod = sure.list("Pod", "default", label_selector="job-name=faults-ended")[0]["metadata"]["name"]
    assert diagnose.pod(behind, pod).verdict


def counted(behind: Stub, sure: Kube) -> None:
    assert capacity.gpus(behind)["free"].sum() == 1
    assert len(capacity.nodes(behind)) == 2
    assert capacity.usage(behind) == {}


def schedulable(behind: Stub, sure: Kube) -> None:
    assert capacity.wait_schedulable(behind, timeout=60)["free"].sum() == 1


def advertised(behind: Stub, sure: Kube) -> None:
    node = capacity.gpus(behind)["node"].iloc[0]
    capacity.advertise(behind, node, gpus=1)


def installed(behind: Stub, sure: Kube) -> None:
    assert plugin.install(behind, timeout=60).gpus == 1
    assert plugin.status(behind)["ok"].all()


CALLS: list[Callable[[Stub, Kube], None]] = [
    get, find, listed, discovered, watched, created, created_with_a_generated_name, applied, patched, deleted,
    requested, submitted, attached, jobs_listed, waited, explained, counted, schedulable, advertised, installed,
]  # fmt: skip


def check(call: Callable[[Stub, Kube], None], fault: str, behind: Stub, proxy: FaultProxy, sure: Kube) -> None:
    proxy.plan = faults.each_once(FAULTS[fault])
    call(behind, sure)
    assert proxy.faults


@pytest.mark.parametrize("fault", QUICK)
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_a_call_continues_after_a_fault(
    call: Callable[[Stub, Kube], None],
    fault: str,
    aks: Cluster,
    ended: jobs.Job,
    behind: Stub,
    proxy: FaultProxy,
) -> None:
    check(call, fault, behind, proxy, aks.kube)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in QUICK])
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_a_call_continues_after_a_rarer_fault(
    call: Callable[[Stub, Kube], None],
    fault: str,
    aks: Cluster,
    ended: jobs.Job,
    behind: Stub,
    proxy: FaultProxy,
) -> None:
    check(call, fault, behind, proxy, aks.kube)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_ends_by_itself(fault: str, aks: Cluster, behind: Stub, proxy: FaultProxy) -> None:
    check(get, fault, behind, proxy, aks.kube)


# Time


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Stub]:
    """A cluster whose API server accepts connections and sends nothing."""
    with Server(Request.silence) as server:
        yield Stub("silent", Kube.from_kubeconfig(server.kubeconfig(tmp_path)))


WAITS: dict[str, Callable[[Any, Any], Any]] = {
    "Job.wait": lambda aks, timeout: jobs.Job(aks, "j", namespace="default").wait(timeout),
    "Job.delete": lambda aks, timeout: jobs.Job(aks, "j", namespace="default").delete(timeout=timeout),
    "capacity.wait_schedulable": lambda aks, timeout: capacity.wait_schedulable(aks, timeout=timeout),
    "plugin.install": lambda aks, timeout: plugin.install(aks, timeout=timeout),
    "plugin.remove": lambda aks, timeout: plugin.remove(aks, timeout=timeout),
}


@pytest.mark.parametrize("wait", WAITS)
def test_a_wait_on_a_silent_server_times_out_and_names_what_it_waited_for(
    silent: Stub, wait: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "READ_TIMEOUT", 600.0)
    began = time.monotonic()
    with pytest.raises(errors.Unreachable) as raised:
        WAITS[wait](silent, 1.5)
    assert time.monotonic() - began < 30  # without the deadline it takes four minutes
    assert "unknown after 1.5 s, because there was no response: no response from the Kubernetes API" in str(
        raised.value
    )
    assert "the request timed out" in raised.value.message


def test_a_call_outside_a_wait_ends_after_its_retry_time(silent: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_policy, "DEFAULT_TIMEOUT", 1.5)
    monkeypatch.setattr(transport, "READ_TIMEOUT", 600.0)
    for call in (lambda: jobs.list(silent), lambda: silent.kube.get("Pod", "p"), lambda: capacity.gpus(silent)):
        with pytest.raises(errors.Unreachable, match=r"GET .*: tried \d times in \d s|GET .*: tried once in \d s"):
            call()


def test_a_slow_body_ends_with_the_deadline(tmp_path: Path) -> None:
    def answer(request: Request) -> None:
        request.begin()
        while not request.server.stopping.wait(0.2):
            request.chunk(b" ")

    with Server(answer) as server:
        kube = Kube.from_kubeconfig(server.kubeconfig(tmp_path))
        began = time.monotonic()
        with pytest.raises(errors.Unreachable), waiting.deadline(1):
            kube.get("Pod", "p")
        assert time.monotonic() - began < 20


@pytest.mark.parametrize("timeout", ["5", True, float("nan"), -1, [], b"1"])
@pytest.mark.parametrize("wait", WAITS)
def test_an_invalid_timeout_is_refused(silent: Stub, wait: str, timeout: Any) -> None:
    with pytest.raises(errors.InvalidInput, match="`timeout` must be a number of seconds, 0 or more, text such as"):
        WAITS[wait](silent, timeout)


def test_no_timeout_means_no_limit(aks: Cluster, ended: jobs.Job) -> None:
    assert ended.wait(timeout=None) is ended
    assert len(capacity.wait_schedulable(aks, timeout=None))


def test_a_wait_without_time_polls_once(aks: Cluster, ended: jobs.Job) -> None:
    assert ended.wait(timeout=0) is ended


def test_a_call_waits_for_a_server_that_refuses_for_a_while(
    aks: Cluster, ended: jobs.Job, behind: Stub, proxy: FaultProxy
) -> None:
    proxy.plan = faults.first(faults.refused(3.0))
    assert jobs.Job(behind, "faults-ended", namespace="default").wait(60)


def test_a_role_that_stays_missing_is_forbidden(
    behind: Stub, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(call: faults.Call) -> Fault:
        if call.ordinal == 2:
            monkeypatch.setattr(retry_policy, "ROLES_TIMEOUT", 0.0)
        return faults.rbac_not_ready()

    proxy.plan = plan
    with pytest.raises(errors.Forbidden, match="RBAC: "):
        behind.kube.list("Job")
    assert len(proxy.calls) == 3
    proxy.plan = faults.always(faults.forbidden())
    before = len(proxy.calls)
    with pytest.raises(errors.Forbidden):
        behind.kube.list("Job")
    assert len(proxy.calls) == before + 1


def test_a_retried_call_says_what_it_waits_for(
    behind: Stub,
    proxy: FaultProxy,
    ended: jobs.Job,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AKSGPU_PROGRESS", "1")
    monkeypatch.setattr(waiting, "NOTICE_AFTER", 0.0)
    proxy.plan = faults.first(faults.status(503), times=3)
    jobs.list(behind)
    shown = capsys.readouterr().err
    assert "the Kubernetes API server" in shown
    assert "the fault proxy answers 503; trying again" in shown


# Writes


def test_creating_an_existing_object_is_still_refused(aks: Cluster, behind: Stub, proxy: FaultProxy) -> None:
    aks.kube.create(config_map("before", a="1"))
    for fault in (faults.no_answer(), faults.etcd_hangs(), faults.cut(9)):
        proxy.plan = faults.first(fault, method="POST")
        with pytest.raises(errors.AlreadyExists):
            behind.kube.create(config_map("before", a="1"))
    aks.kube.delete("ConfigMap", "before")


def test_a_lost_deletion_does_not_delete_a_successor(aks: Cluster, behind: Stub, proxy: FaultProxy) -> None:
    aks.kube.create(config_map("successor", a="old"))

    def plan(call: faults.Call) -> Fault | None:
        if not call.matches("successor", "DELETE"):
            return None
        if call.nth == 0:
            return faults.no_answer()
        if not aks.kube.find("ConfigMap", "successor"):
            aks.kube.create(config_map("successor", a="new"))
        return None

    proxy.plan = plan
    assert behind.kube.delete("ConfigMap", "successor")["status"] == "Success"
    assert aks.kube.get("ConfigMap", "successor")["data"] == {"a": "new"}
    aks.kube.delete("ConfigMap", "successor")


def test_deleting_a_missing_object_is_not_found_even_if_responses_are_lost(behind: Stub, proxy: FaultProxy) -> None:
    proxy.plan = faults.first(faults.no_answer(), times=2)
    with pytest.raises(errors.NotFound):
        behind.kube.delete("ConfigMap", "nope")


def test_a_write_that_is_not_idempotent_is_repeated_only_if_it_was_not_executed(
    aks: Cluster, behind: Stub, proxy: FaultProxy
) -> None:
    made = aks.kube.create(config_map("twice", a="1"))
    add = [{"op": "add", "path": "/data/b", "value": "2"}]
    version = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"c": "3"}}
    for patch in (add, version):
        for fault in (faults.no_answer(), faults.etcd_hangs()):
            proxy.plan = faults.first(fault, method="PATCH")
            before = len(proxy.calls)
            with pytest.raises(errors.KubernetesError):
                behind.kube.patch("ConfigMap", "twice", patch)
            assert len(proxy.calls) == before + 1
    proxy.plan = faults.in_turn([FAULTS["429"], FAULTS["401"]], method="PATCH")
    assert behind.kube.patch("ConfigMap", "twice", add)["data"]["b"] == "2"
    aks.kube.delete("ConfigMap", "twice")


def test_a_lost_creation_may_have_succeeded_if_reading_is_forbidden(tmp_path: Path) -> None:
    def answer(request: Request) -> None:
        posts = sum(each.command == "POST" for each in server.requests)
        if request.command == "GET":
            request.refuse(403, "Forbidden", 'configmaps "c" is forbidden: User "dev" cannot get')
        elif posts == 1:
            request.drop()
        else:
            request.refuse(409, "AlreadyExists", 'configmaps "c" already exists')

    with Server(answer) as server:
        kube = Kube.from_kubeconfig(server.kubeconfig(tmp_path))
        with pytest.raises(errors.AlreadyExists, match="this call may have created it"):
            kube.create(config_map("c"))


@pytest.mark.parametrize("fault", ["500", "503", "429", "401", "403 without roles", "no answer", "silent", "refused"])
def test_opening_a_log_continues_after_a_fault(
    request: pytest.FixtureRequest, aks: Cluster, ended: jobs.Job, behind: Stub, proxy: FaultProxy, fault: str
) -> None:
    pod = aks.kube.list("Pod", "default", label_selector="job-name=faults-ended")[0]["metadata"]["name"]
    proxy.plan = faults.each_once(FAULTS[fault])
    with behind.kube.log(pod, read_timeout=SHORT_SILENCE if is_silence(request) else 60.0) as stream:
        assert stream.read() == b"hi\n"
    assert proxy.faults


def test_creating_and_deleting_have_one_retry_time(silent: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_policy, "DEFAULT_TIMEOUT", 1.0)
    for call in (lambda: silent.kube.create(config_map("c")), lambda: silent.kube.delete("ConfigMap", "c")):
        began = time.monotonic()
        with pytest.raises(errors.Unreachable):
            call()
        assert time.monotonic() - began < 20
