"""What could not be found out is an error, never an empty result.

The server refuses a request, or responds with something other than what was requested. Each public call that reads
then raises an error of the library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import Request, Server

from aksgpu import capacity, cluster, diagnose, errors, jobs, logs, plugin, storage, waiting
from aksgpu.kube import Kube

KUBE_CALLS: dict[str, Callable[[cluster.Cluster], Any]] = {
    "capacity.gpus": capacity.gpus,
    "capacity.nodes": capacity.nodes,
    "capacity.usage": capacity.usage,
    "capacity.wait_schedulable": lambda aks: capacity.wait_schedulable(aks, timeout=1, progress=False),
    "plugin.status": plugin.status,
    "plugin.install": lambda aks: plugin.install(aks, timeout=1, progress=False),
    "plugin.remove": lambda aks: plugin.remove(aks, timeout=1, progress=False),
    "jobs.list": jobs.list,
    "jobs.list of a namespace": lambda aks: jobs.list(aks, namespace="default"),
    "jobs.attach": lambda aks: jobs.attach(aks, "j"),
    "job.status": lambda aks: jobs.Job(aks, "j", namespace="default").status(),
    "job.pods": lambda aks: jobs.Job(aks, "j", namespace="default").pods(),
    "job.logs": lambda aks: jobs.Job(aks, "j", namespace="default").logs(),
    "job.follow": lambda aks: list(jobs.Job(aks, "j", namespace="default").follow()),
    "job.metrics": lambda aks: jobs.Job(aks, "j", namespace="default").metrics(),
    "job.plot": lambda aks: jobs.Job(aks, "j", namespace="default").plot(),
    "job.why": lambda aks: jobs.Job(aks, "j", namespace="default").why(),
    "job.wait": lambda aks: jobs.Job(aks, "j", namespace="default").wait(timeout=1, progress=False),
    "job.delete": lambda aks: jobs.Job(aks, "j", namespace="default").delete(timeout=1, progress=False),
    "diagnose.job": lambda aks: diagnose.job(aks, "j", namespace="default"),
    "diagnose.pod": lambda aks: diagnose.pod(aks, "p", namespace="default"),
    "logs.read": lambda aks: logs.read(aks, "p", namespace="default"),
    "storage.create": lambda aks: storage.create(aks, "c"),
    "storage.list": storage.list,
    "storage.delete": lambda aks: storage.delete(aks, "c", timeout=1, progress=False),
    "kube.list": lambda aks: aks.kube.list("Pod"),
    "kube.list of a kind that is looked up": lambda aks: aks.kube.list("Lease"),
    "kube.find": lambda aks: aks.kube.find("Pod", "p", "default"),
    "kube.get": lambda aks: aks.kube.get("Pod", "p", "default"),
    "kube.watch": lambda aks: next(aks.kube.watch("Pod", timeout=1), None),
}


def forbidden(request: Request) -> None:
    message = 'pods is forbidden: User "u" cannot list resource "pods" in API group "" at the cluster scope'
    request.refuse(403, "Forbidden", message)


def a_login_page(request: Request) -> None:
    request.text("<html><body>Please log in</body></html>", kind="text/html")


def cut_json(request: Request) -> None:
    request.text('{"kind": "List", "items": [{"metadata": {"na', kind="application/json")


def a_number(request: Request) -> None:
    request.json(5)


def an_empty_object(request: Request) -> None:
    request.json({})


def a_proxys_404(request: Request) -> None:
    request.text("<html><body>Not Found</body></html>", 404, "text/html")


def another_404(request: Request) -> None:
    request.json({"error": "no such route"}, 404)


def another_kind(request: Request) -> None:
    request.json({"kind": "Status", "apiVersion": "v1", "status": "Success", "metadata": {}})


PATIENCE = 0.3
"""Seconds for which a call retries after a response that is cut off."""
ANSWERS = [forbidden, a_login_page, a_proxys_404, another_404, cut_json, a_number, an_empty_object, another_kind]


def outcome(answer: Callable[[Request], None], folder: Path, call: Callable[[cluster.Cluster], Any]) -> Any:
    with Server(answer) as server:
        kube = Kube.from_kubeconfig(server.kubeconfig(folder))
        with waiting.deadline(PATIENCE):
            return call(cluster.Cluster("scripted", kube=kube))


def cases() -> Iterator[tuple[str, Callable[[Request], None]]]:
    """Yield each call with each response that is wrong for it."""
    for call in KUBE_CALLS:
        for answer in ANSWERS:
            any_text = call == "logs.read" and answer is not forbidden
            if not any_text:
                yield call, answer


@pytest.mark.parametrize(("call", "answer"), list(cases()))
def test_a_wrong_response_is_an_error(tmp_path: Path, call: str, answer: Callable[[Request], None]) -> None:
    with pytest.raises(errors.AksGpuError) as raised:
        outcome(answer, tmp_path, KUBE_CALLS[call])
    assert not isinstance(raised.value, errors.NotFound), "the server did not say that it does not exist"
    if answer is forbidden:
        assert isinstance(raised.value, errors.Forbidden)


NODE = {
    "metadata": {"name": "n", "labels": {"accelerator": "nvidia"}},
    "status": {
        "capacity": {"nvidia.com/gpu": "1"},
        "allocatable": {"nvidia.com/gpu": "1"},
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}
UID = "5a1d"
JOB = {
    "metadata": {"name": "j", "namespace": "default", "uid": UID, "creationTimestamp": "2026-11-28T00:00:00Z"},
    "spec": {"selector": {"matchLabels": {"job-name": "j"}}, "template": {"spec": {"containers": [{"image": "i"}]}}},
    "status": {"active": 1},
}


def all_but(hidden: str, answer: Callable[[Request], None]) -> Callable[[Request], None]:
    """Return a server that hides one collection."""

    def one(request: Request) -> None:
        collection = request.route.rsplit("/", 1)[-1]
        if collection == hidden:
            answer(request)
        elif collection == "j":
            request.json(JOB)
        elif collection in ("nodes", "pods", "daemonsets", "events", "jobs"):
            request.json({"items": {"nodes": [NODE], "jobs": [JOB]}.get(collection, []), "metadata": {}})
        else:
            request.refuse(404, "NotFound", "not found")

    return one


PARTS = [
    ("capacity.gpus", "nodes"),
    ("capacity.nodes", "nodes"),
    ("capacity.wait_schedulable", "nodes"),
    ("capacity.usage", "pods"),
    ("plugin.status", "nodes"),
    ("plugin.status", "daemonsets"),
    ("plugin.install", "daemonsets"),
    ("job.status", "pods"),
    ("job.pods", "pods"),
    ("job.logs", "pods"),
    ("job.metrics", "pods"),
    ("job.plot", "pods"),
    ("job.why", "pods"),
    ("jobs.list", "jobs"),
]


@pytest.mark.parametrize("answer", [forbidden, a_login_page, another_kind])
@pytest.mark.parametrize(("call", "hidden"), PARTS)
def test_a_collection_that_cannot_be_read_is_an_error(
    tmp_path: Path, call: str, hidden: str, answer: Callable[[Request], None]
) -> None:
    with pytest.raises(errors.KubernetesError):
        outcome(all_but(hidden, answer), tmp_path, KUBE_CALLS[call])


def test_used_is_na_for_a_user_who_may_not_list_pods(tmp_path: Path) -> None:
    table = outcome(all_but("pods", forbidden), tmp_path, capacity.gpus)
    assert table["allocatable"].tolist() == [1]
    assert table[["used", "free", "used_by"]].isna().all(axis=None)
    with pytest.raises(errors.KubernetesError):
        outcome(all_but("pods", a_login_page), tmp_path, capacity.gpus)
