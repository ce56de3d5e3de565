"""Jobs: run a manifest or an image on the cluster's GPUs, wait for it, read its log and its numbers, delete it.

    job = jobs.apply(aks, aksgpu.manifests.mnist())
    job.wait()
    job.metrics()

Everything is a Kubernetes Job and lives in the cluster: a :class:`Job` here is only its name. A new kernel gets it back
with :func:`attach`.

``namespace=None`` means the namespace of the kubeconfig's context in every function, or ``default`` if it names none.
"""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aksgpu.common.frames import frame
from aksgpu.errors import AlreadyExists, Forbidden, InvalidInput, KubernetesError, NotFound
from aksgpu.jobs import endings, job_arguments
from aksgpu.jobs import job_status as _jobstatus
from aksgpu.jobs.job import Job
from aksgpu.jobs.job_status import JobStatus
from aksgpu.jobs.manifest_diff import differences, dropped, quantities_as_text
from aksgpu.kube import pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.kube.node_facts import GPU, add_tolerations, read, tolerations
from aksgpu.manifests.load import documents

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Job", "JobStatus", "apply", "attach", "list", "submit"]

_APPLIED = "aksgpu.dev/applied-configuration"
_LONGEST_APPLIED = 200_000
"""Characters of the annotation; Kubernetes allows 256 KiB for all annotations of an object."""
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


def apply(
    aks: HasKube,
    manifest: Mapping[str, Any] | str | Path,
    *,
    namespace: str | None = None,
    tolerate: bool = True,
    replace: bool | None = None,
) -> Job:
    """Create a Job from its manifest, or return the Job of that name if it is the same.

    A repeated call creates nothing:

    - The Job exists, with the same manifest: it is returned. If it has ended, a ``UserWarning`` says when and how,
      since its log and numbers are those of the old run. With ``replace=False`` there is no warning.
    - The Job exists, with another manifest: AlreadyExists names the fields that differ, and says when the Job ended if
      it has ended.
    - With ``replace=True``, an existing Job is deleted and the new one created, whether it differs or not.

    Nothing is waited for. A Job that no node can take now is accepted, since nodes may come: ``job.why()`` and the
    text of ``job.wait()`` say what keeps it from running.

    Args:
        aks: the cluster.
        manifest: one Job, as a dict, YAML text, or the name of a YAML file. It needs ``metadata.name``:
            ``generateName`` is refused, since a repeated call would start another Job.
        namespace: to run in; None uses the manifest's, or else the context's namespace.
        tolerate: add tolerations for the taints of the cluster's GPU nodes, if the Job asks for GPUs. False leaves
            the manifest as it is.
        replace: True deletes a Job of that name first, with its pods and logs. False accepts an old run of the same
            manifest; None accepts it with a warning.

    Returns:
        The Job.

    Raises:
        InvalidInput: the manifest is not one Job, or a value in it cannot be right; the message names the field.
        Invalid: the API server does not accept it; the message names the field.
        AlreadyExists: a Job of that name differs; the message names the fields.

    Example:
        >>> job = jobs.apply(aks, aksgpu.manifests.mnist(max_steps=100))  # doctest: +SKIP
    """
    check_cluster(aks)
    return _apply(aks, _one_job(manifest), namespace, tolerate, replace)


def submit(
    aks: HasKube,
    *,
    image: str,
    name: str | None = None,
    args: Sequence[object] | None = None,
    command: Sequence[object] | None = None,
    gpus: int = 1,
    env: Mapping[str, object] | None = None,
    namespace: str | None = None,
    cpu: float | str | None = None,
    memory: str | None = None,
    node_selector: Mapping[str, str] | None = None,
    retries: int = 0,
    tolerate: bool = True,
    replace: bool | None = None,
) -> Job:
    """Run an image as a Job, without writing a manifest.

    A repeated call is the same as for :func:`apply`.

    Args:
        aks: the cluster.
        image: container image, such as ``docker.io/library/python:3.13``.
        name: of the Job, at most 63 characters. None makes one from the image and a checksum of all arguments, so that
            the same call gives the same Job and another call a new Job.
        args: arguments of the image's program: texts and numbers.
        command: program to run instead of the image's, and its first arguments: texts and numbers.
        gpus: GPUs (``nvidia.com/gpu``); 0 for none.
        env: environment variables: texts and numbers by name.
        namespace: to run in; None uses the context's namespace.
        cpu: cores to reserve, such as 2 or ``"500m"``.
        memory: memory to reserve and not to exceed, with its unit, such as ``"8Gi"``.
        node_selector: labels that the node must have.
        retries: how often to run it again after a failure.
        tolerate: as for :func:`apply`.
        replace: as for :func:`apply`.

    Returns:
        The Job.

    Raises:
        InvalidInput: an argument that cannot be right; nothing was sent.
        Invalid: the API server does not accept it; the message names the field.
        AlreadyExists: a Job of that name differs; the message names the fields.

    Example:
        >>> job = jobs.submit(aks, image="docker.io/nvidia/cuda:12.9.1-base", command=["nvidia-smi"])  # doctest: +SKIP
    """
    check_cluster(aks)
    image = job_arguments.image(image)
    gpus = job_arguments.count("gpus", gpus, 0, of="GPUs are whole")
    retries = job_arguments.count("retries", retries, 0)
    memory = job_arguments.memory(memory)
    limits = {GPU: str(gpus) if gpus else None, "memory": memory}
    requests = {"cpu": job_arguments.cpu(cpu), "memory": memory}
    variables = [{"name": key, "value": value} for key, value in job_arguments.pairs("env", env).items()]
    container = _without_none(
        {
            "name": "main",
            "image": image,
            "command": job_arguments.texts("command", command),
            "args": job_arguments.texts("args", args),
            "env": variables or None,
            "resources": {"limits": _without_none(limits), "requests": _without_none(requests)},
        }
    )
    pod: Object = {"containers": [container], "restartPolicy": "Never"}
    if node_selector:
        pod["nodeSelector"] = job_arguments.pairs("node_selector", node_selector)
    name = _name_from(image, pod, retries) if name is None else job_arguments.job_name(name)
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"backoffLimit": retries, "template": template}
    manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels}, "spec": spec}
    return _apply(aks, manifest, namespace, tolerate, replace)


def attach(aks: HasKube, name: str, namespace: str | None = None) -> Job:
    """Return the Job of that name, whoever created it.

    Args:
        aks: the cluster.
        name: of the Job.
        namespace: of the Job; None uses the context's namespace.

    Raises:
        NotFound: there is no such Job; the hint names the Jobs that there are.

    Example:
        >>> job = jobs.attach(aks, "samples-tf-mnist-demo")  # doctest: +SKIP
    """
    check_cluster(aks)
    name = job_arguments.job_name(name, new=False)
    if namespace is not None:
        job_arguments.namespace(namespace)
    namespace = namespace or aks.kube.namespace
    if aks.kube.find("Job", name, namespace) is None:
        raise NotFound(f"no Job {name!r} in namespace {namespace!r}", hint=_jobs_there(aks, namespace))
    return Job(aks, name, namespace)


def _jobs_there(aks: HasKube, namespace: str) -> str:
    """Words for the Jobs of a namespace."""
    try:
        names = sorted(aks.kube.list("Job", namespace, pick=lambda job: job["metadata"]["name"]))
    except KubernetesError as failed:
        return f"Which Jobs there are could not be read: {failed.message}"
    there = f"Its Jobs: {', '.join(names)}." if names else "It has no Jobs."
    return f"{there} jobs.list(aks, all_namespaces=True) shows those of all namespaces."


def list(aks: HasKube, namespace: str | None = None, *, all_namespaces: bool = False) -> pd.DataFrame:
    """Return the Jobs of a namespace, oldest first.

    Args:
        aks: the cluster.
        namespace: whose Jobs; None uses the context's namespace.
        all_namespaces: list the Jobs of all namespaces instead. Needs the right to do so.

    Returns:
        One row for each Job: namespace, job, phase (as in :class:`JobStatus`), reason, image (of the first container),
        all string; succeeded and completions (Int64): pods; gpus (Int64): of one pod.

    Raises:
        Forbidden: you may not list the Jobs of that namespace, or of all namespaces.
        NotFound: there is no such namespace.

    Example:
        >>> jobs.list(aks)  # doctest: +SKIP
    """
    check_cluster(aks)
    job_arguments.flag("all_namespaces", all_namespaces)
    if namespace is not None:
        job_arguments.namespace(namespace)
        if all_namespaces:
            raise InvalidInput(
                "`namespace` must be left out with `all_namespaces=True`",
                hint=f"jobs.list(aks, {namespace!r}) lists one namespace.",
            )
    found = (
        aks.kube.list("Job", all_namespaces=True)
        if all_namespaces
        else _in_namespace(aks, namespace or aks.kube.namespace)
    )
    found.sort(key=lambda job: (job["metadata"]["creationTimestamp"], job["metadata"]["name"]))
    rows = []
    for job in found:
        status = _jobstatus.of(job, None)
        pod = job["spec"]["template"]["spec"]
        rows.append(
            {
                "namespace": job["metadata"]["namespace"],
                "job": job["metadata"]["name"],
                "phase": status.phase,
                "reason": status.reason,
                "succeeded": status.succeeded,
                "completions": status.completions,
                "gpus": sum(pod_facts.gpus(pod).values()),
                "image": pod["containers"][0]["image"],
            }
        )
    return frame(rows, _LIST_COLUMNS)


def _in_namespace(aks: HasKube, namespace: str) -> builtins.list[Object]:
    """The Jobs of a namespace, which must exist: the API server lists nothing in a namespace that does not."""
    found = aks.kube.list("Job", namespace)
    if not found:
        # A user with rights in the namespace alone may list its Jobs, but not see the namespace.
        with contextlib.suppress(Forbidden):
            aks.kube.get("Namespace", namespace)
    return found


def _apply(aks: HasKube, manifest: Object, namespace: str | None, tolerate: bool, replace: bool | None) -> Job:
    job_arguments.flag("tolerate", tolerate)
    if replace is not None:
        job_arguments.flag("replace", replace)
    metadata = manifest["metadata"]
    if namespace is not None:
        metadata["namespace"] = job_arguments.namespace(namespace)
    elif metadata.get("namespace") is None:
        metadata["namespace"] = aks.kube.namespace
    full = _completed(aks, manifest, tolerate)
    job = Job(aks, metadata["name"], metadata["namespace"])
    live = aks.kube.find("Job", job.name, job.namespace)
    if live is not None and (replace or live["metadata"].get("deletionTimestamp")):
        job.delete()
        live = None
    if live is None:
        try:
            aks.kube.create(full)
            return job
        except AlreadyExists:  # It was created since the look above, for example by another kernel.
            live = aks.kube.find("Job", job.name, job.namespace)
            if live is None:
                raise
    _refuse_different(aks, manifest, full, live)
    ended = endings.ending(aks.kube, live) if replace is None else ""
    if ended:
        warnings.warn(
            f"Job {job.name!r} {ended}. This is the old run: with replace=True, the same call runs it again.",
            stacklevel=3,
        )
    return job


def _one_job(manifest: Mapping[str, Any] | str | Path) -> Object:
    """The Job of a manifest, as a copy whose fields were checked."""
    objects = documents(manifest)
    kinds = [str(obj.get("kind") or "an object without `kind`") for obj in objects]
    if kinds != ["Job"]:
        shown = ", ".join(kinds[:10]) + (f" and {len(kinds) - 10} more" if len(kinds) > 10 else "")
        raise InvalidInput(
            f"jobs.apply takes a manifest with exactly one Job, this one has: {shown}",
            hint="Is `kind: Job` missing? aksgpu.manifests.mnist() is an example."
            if not any(obj.get("kind") for obj in objects)
            else "Apply each of the others with aks.kube.apply(obj).",
        )
    job = objects[0]
    if job.get("apiVersion") != "batch/v1":
        raise InvalidInput(
            f"`apiVersion` must be 'batch/v1', got {job.get('apiVersion')!r}", hint="Write apiVersion: batch/v1."
        )
    _check_metadata(job)
    example = "aksgpu.manifests.mnist() is an example."
    path = ""
    value = job
    for key in ("spec", "template", "spec"):
        path = f"{path}.{key}".strip(".")
        value = value.get(key) or {}
        if not isinstance(value, dict) or not value:
            raise InvalidInput(f"the Job has no {path}", hint=example)
    if not value.get("containers"):
        raise InvalidInput(f"the Job has no containers in {path}", hint=example)
    _check_containers(value, path)
    job_arguments.quantities(job["spec"], "spec")
    quantities_as_text(job)
    return job


def _check_metadata(job: Object) -> None:
    metadata = job.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise InvalidInput(f"`metadata` must be a mapping, got {metadata!r:.80}", hint="metadata: {name: training-1}")
    if metadata.get("name") is None and metadata.get("generateName"):
        raise InvalidInput(
            "`metadata.name` must be given: with `generateName`, a repeated call would start another Job",
            hint="Write metadata.name. aks.kube.create(manifest) creates another Job at each call.",
        )
    job_arguments.job_name(metadata.get("name"), "metadata.name")
    if metadata.get("namespace") is not None:
        job_arguments.namespace(metadata["namespace"], "metadata.namespace")
    for key in ("labels", "annotations"):
        values = metadata.get(key) or {}
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            raise InvalidInput(
                f"`metadata.{key}` must be a mapping of texts, got {values!r:.80}",
                hint='Write numbers and booleans in quotes, such as "1" and "true".',
            )


def _check_containers(pod: Object, path: str) -> None:
    tolerations = pod.get("tolerations") or []
    if not isinstance(tolerations, builtins.list) or not all(isinstance(each, dict) for each in tolerations):
        raise InvalidInput(f"`{path}.tolerations` must be a list of mappings", hint="- {key: sku, value: gpu}")
    for kind in ("initContainers", "containers"):
        containers = pod.get(kind) or []
        if not isinstance(containers, builtins.list) or not all(isinstance(each, dict) for each in containers):
            raise InvalidInput(f"`{path}.{kind}` must be a list of mappings", hint="- name: main")
        for index, container in enumerate(containers):
            _check_container(container, f"{path}.{kind}[{index}]")


def _check_resources(resources: Any, path: str) -> None:
    if not isinstance(resources, dict):
        raise InvalidInput(f"`{path}` must be a mapping, got {resources!r:.80}", hint="resources: {limits: {cpu: 1}}")
    for field in ("limits", "requests"):
        if not isinstance(resources.get(field) or {}, dict):
            raise InvalidInput(
                f"`{path}.{field}` must be a mapping, got {resources[field]!r:.80}", hint="limits: {cpu: 1}"
            )


def _check_container(container: Object, path: str) -> None:
    _check_resources(container.get("resources") or {}, f"{path}.resources")
    for field in ("command", "args"):
        if container.get(field) is not None:
            job_arguments.sequence_of_texts(f"{path}.{field}", container[field])
    variables = container.get("env") or []
    for index, variable in enumerate(variables if isinstance(variables, builtins.list) else []):
        value = variable.get("value") if isinstance(variable, dict) else None
        if value is not None and not isinstance(value, str):
            raise InvalidInput(
                f"`{path}.env[{index}].value` must be a text, got {value!r:.80}",
                hint=f'Write it in quotes: value: "{str(value).lower() if isinstance(value, bool) else value}".',
            )


def _completed(aks: HasKube, wanted: Object, tolerate: bool) -> Object:
    """The object to create: the manifest, the tolerations that its GPUs need, and the manifest as an annotation."""
    full: Object = json.loads(json.dumps(wanted))
    pod = full["spec"]["template"]["spec"]
    if tolerate and pod_facts.gpus(pod):
        try:
            nodes = aks.kube.list("Node", pick=read)
        except Forbidden:  # A user with rights in one namespace: the documented taints are tolerated.
            nodes = []
        add_tolerations(pod, tolerations(nodes))
    applied = json.dumps({"spec": wanted["spec"]}, sort_keys=True)
    if len(applied) < _LONGEST_APPLIED:
        full["metadata"]["annotations"] = {**(full["metadata"].get("annotations") or {}), _APPLIED: applied}
    return full


def _refuse_different(aks: HasKube, wanted: Object, full: Object, live: Object) -> None:
    """Raise if the Job that exists is not the one that is wanted."""
    fields = _different_fields(wanted, full, live)
    if not fields:
        return
    name = live["metadata"]["name"]
    ended = endings.ending(aks.kube, live)
    shown = ", ".join(fields)
    if ended:
        message = f"Job {name!r} {ended}; it differs in {shown}"
        hint = "The same call with replace=True runs the new one; the old run's pods and logs are deleted."
    else:
        message = f"Job {name!r} exists, has not ended, and differs in {shown}"
        hint = "The same call with replace=True deletes it and runs the new one; or choose another name."
    raise AlreadyExists(message, hint=hint)


def _different_fields(wanted: Object, full: Object, live: Object) -> Sequence[str]:
    """Paths of the fields in which a manifest differs from the Job that exists."""
    bare = json.loads(json.dumps({"spec": wanted["spec"]}))
    asked = bare["spec"]["template"]["spec"].pop("tolerations", None) or []
    fields = [*differences(bare, live), *dropped(_applied_before(live), {"spec": wanted["spec"]})]
    for key in ("labels", "annotations"):
        fields += differences(wanted["metadata"].get(key), live["metadata"].get(key) or {}, f"metadata.{key}")
    # The live Job also has tolerations that this library added. Missing ones matter while they keep it from starting.
    have = live["spec"]["template"]["spec"].get("tolerations") or []
    waiting = not _jobstatus.of(live, None).ended and not (live.get("status") or {}).get("ready")
    needed = (full["spec"]["template"]["spec"].get("tolerations") or []) if waiting else asked
    if any(toleration not in have for toleration in needed):
        fields.append("spec.template.spec.tolerations")
    return builtins.list(dict.fromkeys(fields))


def _applied_before(live: Object) -> Object:
    """The manifest that a Job was created from, as far as its annotations say; empty otherwise."""
    annotations = live["metadata"].get("annotations") or {}
    text = annotations.get(_APPLIED) or annotations.get(_KUBECTL_APPLIED) or "{}"
    try:
        applied = json.loads(text)
    except ValueError:  # Anybody can write an annotation. The live Job is compared all the same.
        return {}
    spec = applied.get("spec") if isinstance(applied, dict) else None
    return {"spec": spec} if isinstance(spec, dict) else {}


def _name_from(image: str, pod: Object, retries: int) -> str:
    """A name for a Job that is the same for the same image, pod and retries."""
    base = re.sub(r"[^a-z0-9]+", "-", image.rsplit("/", 1)[-1].split("@")[0].split(":")[0].lower()).strip("-")
    digest = hashlib.sha256(json.dumps([pod, retries], sort_keys=True).encode()).hexdigest()
    return f"{base[:40].strip('-') or 'job'}-{digest[:6]}"


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
