"""Jobs: run a manifest or an image on the cluster's GPUs, wait for it, read its log and its numbers, delete it.

    job = jobs.apply(aks, aksgpu.manifests.mnist())
    job.wait()
    job.metrics()

Everything is a Kubernetes Job and lives in the cluster: a :class:`Job` here is only a name for it, which a new kernel
gets back with :func:`attach`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aksgpu._frames import frame
from aksgpu._jobs import status as _jobstatus
from aksgpu._jobs.difference import differences, dropped, quantities_as_text
from aksgpu._jobs.job import Job
from aksgpu._jobs.status import JobStatus
from aksgpu._kube import names, pods
from aksgpu._kube.documents import documents
from aksgpu._kube.nodes import GPU, add_tolerations, read, tolerations
from aksgpu._numbers import whole
from aksgpu.errors import AlreadyExists, Forbidden, InvalidInput, NotFound
from aksgpu.kube import HasKube, Object

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Job", "JobStatus", "apply", "attach", "list", "submit"]

_APPLIED = "aksgpu.dev/applied-configuration"
_KUBECTL_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_LIST_COLUMNS = {
    "namespace": "string",
    "job": "string",
    "phase": "string",
    "reason": "string",
    "succeeded": "Int64",
    "completions": "Int64",
    "gpus": "Int64",
    "image": "string",
}
# Making


def apply(
    aks: HasKube,
    manifest: Mapping[str, Any] | str | Path,
    *,
    namespace: str | None = None,
    tolerate: bool = True,
    replace: bool = False,
) -> Job:
    """Run a Job from its manifest. Twice is fine: the Job that runs or has ended is returned.

    Nothing is waited for. A Job that no node can take now is accepted, since nodes may come: ``job.why()`` and the
    text of ``job.wait()`` tell what is in its way.

    Args:
        aks: the cluster.
        manifest: one Job, as a dict, YAML text, or a file of it.
        namespace: to run in; None for the manifest's, or else ``default``.
        tolerate: add tolerations for the taints of the cluster's GPU nodes, where the Job asks for GPUs. False leaves
            the manifest as it is.
        replace: delete a Job of that name first, with its pods and logs, whether it differs or not.

    Returns:
        The Job.

    Raises:
        InvalidInput: the manifest is not one Job.
        Invalid: the API server does not accept it; the message names the field.
        AlreadyExists: a Job of that name differs; the message names the fields.
    """
    wanted = _one_job(manifest)
    metadata = wanted.setdefault("metadata", {})
    metadata["namespace"] = namespace or metadata.get("namespace") or aks.kube.namespace
    names.check_namespace(metadata["namespace"], "metadata.namespace")
    name = metadata.get("name")
    if name is not None:
        names.check_name("Job", name, "metadata.name")
    full = _completed(aks, wanted, tolerate)
    if name is not None:
        live = aks.kube.find("Job", name, metadata["namespace"])
        if live is not None and (replace or live["metadata"].get("deletionTimestamp")):
            Job(aks, name, metadata["namespace"]).delete()
        elif live is not None:
            _refuse_different(wanted, full, live)
            return Job(aks, name, metadata["namespace"])
    made = aks.kube.create(full)
    return Job(aks, made["metadata"]["name"], made["metadata"]["namespace"])


def submit(
    aks: HasKube,
    *,
    image: str,
    name: str | None = None,
    args: Sequence[object] | None = None,
    command: Sequence[object] | None = None,
    gpus: int = 1,
    env: Mapping[str, object] | None = None,
    namespace: str = "default",
    cpu: float | str | None = None,
    memory: str | None = None,
    node_selector: Mapping[str, str] | None = None,
    retries: int = 0,
    tolerate: bool = True,
    replace: bool = False,
) -> Job:
    """Run an image as a Job, without writing a manifest.

    Args:
        aks: the cluster.
        image: container image.
        name: of the Job; None makes one from the image and a checksum of all that is asked for, so that the same call
            gives the same Job and another one a new Job.
        args: arguments of the image's program, each made text.
        command: program to run in the image's place and its first arguments, each made text.
        gpus: GPUs (``nvidia.com/gpu``); 0 for none.
        env: environment variables, their values made text.
        namespace: to run in.
        cpu: cores to reserve.
        memory: memory to reserve and not to exceed, such as ``8Gi``.
        node_selector: labels that the node must have.
        retries: how often to run it again after a failure.
        tolerate: as for :func:`apply`.
        replace: as for :func:`apply`.

    Returns:
        The Job.

    Raises:
        InvalidInput: an argument that cannot be right.
        Invalid: the API server does not accept it; the message names the field.
        AlreadyExists: a Job of that name differs; the message names the fields.
    """
    gpus, retries = whole("gpus", gpus, 0, of="GPUs are whole"), whole("retries", retries, 0)
    limits = {GPU: str(gpus) if gpus else None, "memory": memory}
    requests = {"cpu": None if cpu is None else str(cpu), "memory": memory}
    container = _without_none(
        {
            "name": "main",
            "image": image,
            "command": _texts("command", command),
            "args": _texts("args", args),
            "env": [{"name": key, "value": value} for key, value in _pairs("env", env).items()] or None,
            "resources": {"limits": _without_none(limits), "requests": _without_none(requests)},
        }
    )
    pod: Object = {"containers": [container], "restartPolicy": "Never"}
    if node_selector:
        pod["nodeSelector"] = _pairs("node_selector", node_selector)
    name = name or _name_of(image, pod, retries)
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"backoffLimit": retries, "template": template}
    manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels}, "spec": spec}
    return apply(aks, manifest, namespace=namespace, tolerate=tolerate, replace=replace)


def attach(aks: HasKube, name: str, namespace: str = "default") -> Job:
    """The Job of that name, whoever made it.

    Args:
        aks: the cluster.
        name: of the Job.
        namespace: that it lives in.

    Raises:
        NotFound: there is none; the hint names those that there are.
    """
    if aks.kube.find("Job", name, namespace) is None:
        found = sorted(aks.kube.list("Job", namespace, pick=lambda job: job["metadata"]["name"]))
        there = f"Its Jobs: {', '.join(found)}." if found else "It has no Jobs."
        raise NotFound(f"no Job {name!r} in namespace {namespace!r}", hint=f"{there} jobs.list(aks) shows all.")
    return Job(aks, name, namespace)


def list(aks: HasKube, namespace: str | None = None) -> pd.DataFrame:
    """All Jobs, oldest first.

    Args:
        aks: the cluster.
        namespace: None for all that you may see.

    Returns:
        One row a Job: namespace, job, phase (as in :class:`JobStatus`), reason, image (of the first container), all
        string; succeeded and completions (Int64): pods; gpus (Int64): of one pod.
    """
    found = aks.kube.list("Job", namespace)
    found.sort(key=lambda job: (job["metadata"]["creationTimestamp"], job["metadata"]["name"]))
    rows = []
    for job in found:
        status, pod = _jobstatus.of(job, ()), job["spec"]["template"]["spec"]
        rows.append(
            {
                "namespace": job["metadata"]["namespace"],
                "job": job["metadata"]["name"],
                "phase": status.phase,
                "reason": status.reason,
                "succeeded": status.succeeded,
                "completions": status.completions,
                "gpus": sum(pods.gpus(pod).values()),
                "image": pod["containers"][0]["image"],
            }
        )
    return frame(rows, _LIST_COLUMNS)


def _one_job(manifest: Mapping[str, Any] | str | Path) -> Object:
    objects = documents(manifest)
    kinds = [str(obj.get("kind") or "an object without `kind`") for obj in objects]
    if kinds != ["Job"]:
        raise InvalidInput(
            f"jobs.apply takes a manifest with exactly one Job, this one has: {', '.join(kinds)}",
            hint="Is `kind: Job` missing? aksgpu.manifests.mnist() is an example."
            if not any(obj.get("kind") for obj in objects)
            else "Apply the others with aks.kube.apply(obj).",
        )
    job = objects[0]
    example, path, value = "aksgpu.manifests.mnist() is an example.", "", job
    for key in ("spec", "template", "spec"):
        path, value = f"{path}.{key}".strip("."), value.get(key) or {}
        if not isinstance(value, dict) or not value:
            raise InvalidInput(f"the Job has no {path}", hint=example)
    if not value.get("containers"):
        raise InvalidInput("the Job has no containers in spec.template.spec", hint=example)
    quantities_as_text(job)
    return job


def _completed(aks: HasKube, wanted: Object, tolerate: bool) -> Object:
    """What is sent: the manifest, the tolerations that its GPUs need, and the manifest once more as a note."""
    full: Object = json.loads(json.dumps(wanted))
    pod = full["spec"]["template"]["spec"]
    if tolerate and pods.gpus(pod):
        try:
            nodes = aks.kube.list("Node", pick=read)
        except Forbidden:  # with rights in one namespace only, the documented taints are taken
            nodes = []
        add_tolerations(pod, tolerations(nodes))
    annotations = full["metadata"].setdefault("annotations", {})
    annotations[_APPLIED] = json.dumps({"spec": wanted["spec"]}, sort_keys=True)
    return full


def _refuse_different(wanted: Object, full: Object, live: Object) -> None:
    """Raise where the Job that is there is not the one that is wanted."""
    before = live["metadata"].get("annotations") or {}
    applied = json.loads(before.get(_APPLIED) or before.get(_KUBECTL_APPLIED) or "{}")
    bare = json.loads(json.dumps({"spec": wanted["spec"]}))
    asked = bare["spec"]["template"]["spec"].pop("tolerations", None) or []
    fields = [*differences(bare, live), *dropped({"spec": applied.get("spec") or {}}, {"spec": wanted["spec"]})]
    # Tolerations that this library added stand beside the manifest's; missing ones matter while they keep it waiting.
    have = live["spec"]["template"]["spec"].get("tolerations") or []
    waiting = not _jobstatus.of(live, ()).ended and not (live.get("status") or {}).get("ready")
    needed = (full["spec"]["template"]["spec"].get("tolerations") or []) if waiting else asked
    if any(toleration not in have for toleration in needed):
        fields.append("spec.template.spec.tolerations")
    if fields:
        name = live["metadata"]["name"]
        raise AlreadyExists(
            f"Job {name!r} exists and differs in {', '.join(dict.fromkeys(fields))}",
            hint="jobs.apply(..., replace=True) deletes it and runs this one; or choose another name.",
        )


def _name_of(image: str, pod: Object, retries: int) -> str:
    base = re.sub(r"[^a-z0-9]+", "-", image.rsplit("/", 1)[-1].split("@")[0].split(":")[0].lower()).strip("-")
    digest = hashlib.sha256(json.dumps([pod, retries], sort_keys=True).encode()).hexdigest()
    return f"{base[:40] or 'job'}-{digest[:6]}"


def _texts(argument: str, values: Iterable[object] | None) -> Sequence[str] | None:
    if values is None:
        return None
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        why = f"{argument} is a sequence of texts and numbers, not {values!r}"
        raise InvalidInput(why, hint=f'For example {argument}=["--steps", 500].')
    return [str(each) for each in values]


def _pairs(argument: str, values: Mapping[str, object] | None) -> dict[str, str]:
    given = values or {}
    if not isinstance(given, Mapping) or None in given.values():
        why = f"{argument} gives each name a text or a number, not {values!r}"
        raise InvalidInput(why, hint=f'For example {argument}={{"NAME": "value"}}.')
    return {name: str(value) for name, value in given.items()}


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
