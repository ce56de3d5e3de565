"""Create Jobs, from a manifest or from an image. A repeated call returns the Job that exists."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from aksgpu.common.arguments import flag
from aksgpu.errors import AlreadyExists
from aksgpu.jobs import job_arguments
from aksgpu.jobs.apply_rules import REPLACE
from aksgpu.jobs.gpu_tolerations import read_nodes, tolerate_gpu_nodes
from aksgpu.jobs.job import Job
from aksgpu.jobs.job_ending import describe_ending
from aksgpu.jobs.job_manifest import check_job
from aksgpu.jobs.job_references import missing_objects
from aksgpu.jobs.manifest_diff import different_fields, with_applied_manifest
from aksgpu.jobs.other_objects import apply_others, split_job
from aksgpu.kube import path_names, pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.kube.label_names import DO_NOT_EVICT
from aksgpu.kube.node_facts import GPU
from aksgpu.manifests.load import Manifest

__all__ = ["apply", "submit"]

_REQUESTED_CORES = "100m"
_REQUESTED_MEMORY = "256Mi"
"""What a container reserves by default. AKS Automatic refuses containers without requests."""

_NAME_PREFIX_LENGTH = 40
"""Characters of the image's name in a name that :func:`submit` makes."""
_NAME_DIGEST_LENGTH = 6
"""Characters of the checksum in such a name."""


def apply(
    aks: HasKube,
    manifest: Manifest,
    *,
    namespace: str | None = None,
    tolerate: bool = True,
    replace: bool | None = None,
) -> Job:
    """Create a Job from its manifest, or return the Job of that name if it is the same.

    What happens depends on the Job of that name:

    - It does not exist: it is created.
    - It exists with the same manifest and has not ended: it is returned.
    - It exists with the same manifest and has ended: it is returned, with a ``UserWarning`` that says when and how it
      ended. Its log and numbers are those of the old run. ``replace=False`` leaves the warning out.
    - It exists with a different manifest: AlreadyExists is raised. The message lists the fields that differ, and says
      when and how the Job ended if it has ended.
    - It is being deleted: the call waits until it is gone, and creates a new one.

    The same call with ``replace=True`` deletes the existing Job with its pods and logs, and creates a new one.

    A manifest with ``generateName`` is refused, because each call would create another Job;
    ``jobs.get(aks, aks.kube.create(manifest)["metadata"]["name"])`` creates one and returns it. A manifest must hold
    exactly one Job: call ``jobs.apply(aks, obj)`` for each Job. Other objects in the manifest are applied before the
    Job, in their order. A line of output says what was applied, and ``job.applied`` lists it.
    :func:`aksgpu.manifests.as_jobs` writes Pods, CronJobs and other objects with a pod template as Jobs.

    If the Job names an object that the cluster does not have, such as a Secret or a RuntimeClass, a ``UserWarning``
    says what to do, because its pods wait for that object.

    The call does not wait for the Job. A Job that no node can take now is accepted, because nodes may be added:
    ``job.why()`` explains what keeps it from running, and so does ``job.wait()`` when its time runs out.

    Args:
        aks: the cluster.
        manifest: a Job, with the other objects that it needs: a dict, a list of dicts, YAML text, or the path of a
            YAML file.
        namespace: the namespace to run in; None uses the manifest's, or else the context's namespace.
        tolerate: add tolerations for the taints of the cluster's GPU nodes, if the Job asks for GPUs. False leaves
            the manifest as it is.
        replace: True deletes an existing Job first; False returns an old run of the same manifest without a warning;
            None returns it with a warning.

    Returns:
        The Job.

    Raises:
        InvalidInput: the manifest is not one Job, or a value in it is not valid; the message names the field, and
            nothing was created.
        NotFound: the cluster does not have the kind of another object; nothing was created.
        Invalid: the API server does not accept the manifest; the message names the field.
        AlreadyExists: the Job of that name differs; the message names the fields.

    Example:
        >>> job = jobs.apply(aks, aksgpu.manifests.mnist(max_steps=100))  # doctest: +SKIP
    """
    check_cluster(aks)
    job, others = split_job(aks, manifest)
    return _create_or_return(aks, check_job(job), namespace, tolerate, replace, others)


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

    A repeated call does the same as for :func:`apply`. The pods carry the annotations that keep the cluster autoscaler
    and node auto-provisioning from evicting them while they run.

    Args:
        aks: the cluster.
        image: container image, such as ``docker.io/library/python:3.13``.
        name: the Job's name, at most 63 characters. None makes one from the image and a checksum of all arguments: the
            same call returns the same Job, and a different call creates a different one.
        args: arguments of the image's program: strings and numbers.
        command: program to run instead of the image's, and its first arguments: strings and numbers.
        gpus: number of GPUs (``nvidia.com/gpu``); 0 for none.
        env: environment variables by name: strings and numbers.
        namespace: the namespace to run in; None uses the context's namespace.
        cpu: cores to reserve, such as 2 or ``"500m"``; None reserves 0.1.
        memory: memory to reserve, which is also the limit, with its unit, such as ``"8Gi"``; None reserves 256 MiB
            without a limit.
        node_selector: labels that the node must have.
        retries: how often to run the program again after a failure.
        tolerate: as for :func:`apply`.
        replace: as for :func:`apply`.

    Returns:
        The Job.

    Raises:
        InvalidInput: an argument is not valid; the message names it, and nothing was sent.
        Invalid: the API server does not accept the Job; the message names the field.
        AlreadyExists: the Job of that name differs; the message names the fields.

    Example:
        >>> job = jobs.submit(aks, image="docker.io/nvidia/cuda:12.9.1-base", command=["nvidia-smi"])  # doctest: +SKIP
    """
    check_cluster(aks)
    image = job_arguments.image(image)
    retries = job_arguments.count("retries", retries)
    container = _without_none(
        {
            "name": "main",
            "image": image,
            "command": job_arguments.texts("command", command),
            "args": job_arguments.texts("args", args),
            "env": _env(env),
            "resources": _resources(gpus, cpu, memory),
        }
    )
    pod_spec: Object = {"containers": [container], "restartPolicy": "Never"}
    if node_selector:
        pod_spec["nodeSelector"] = job_arguments.pairs("node_selector", node_selector)
    job_name = _name_from(image, pod_spec, retries) if name is None else job_arguments.new_job_name(name)
    manifest = _job_manifest(job_name, pod_spec, retries)
    return _create_or_return(aks, manifest, namespace, tolerate, replace)


# A manifest from arguments


def _env(env: Mapping[str, object] | None) -> list[Object] | None:
    """Return a container's ``env``; None without variables."""
    variables = job_arguments.pairs("env", env)
    return [{"name": key, "value": value} for key, value in variables.items()] or None


def _resources(gpus: int, cpu: float | str | None, memory: str | None) -> Object:
    """Return a container's ``resources``."""
    gpu_count = job_arguments.count("gpus", gpus)
    memory_text = job_arguments.memory(memory)
    limits = {GPU: str(gpu_count) if gpu_count else None, "memory": memory_text}
    requests = {
        "cpu": job_arguments.cpu(cpu) or _REQUESTED_CORES,
        "memory": memory_text or _REQUESTED_MEMORY,
    }
    return {"limits": _without_none(limits), "requests": _without_none(requests)}


def _job_manifest(name: str, pod_spec: Object, retries: int) -> Object:
    labels = {"app": name}
    template = {"metadata": {"labels": labels, "annotations": dict(DO_NOT_EVICT)}, "spec": pod_spec}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {"backoffLimit": retries, "template": template},
    }


def _name_from(image: str, pod_spec: Object, retries: int) -> str:
    """Return a name for a Job that is the same for the same image, pod and retries."""
    repository = image.rsplit("/", 1)[-1].split("@")[0].split(":")[0]
    prefix = path_names.proposed(repository, _NAME_PREFIX_LENGTH) or "job"
    arguments = json.dumps([pod_spec, retries], sort_keys=True)
    digest = hashlib.sha256(arguments.encode()).hexdigest()
    return f"{prefix}-{digest[:_NAME_DIGEST_LENGTH]}"


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


# Create or return


def _create_or_return(
    aks: HasKube,
    manifest: Object,
    namespace: str | None,
    tolerate: bool,
    replace: bool | None,
    others: Sequence[Object] = (),
) -> Job:
    """Carry out :func:`apply` for a manifest whose fields were checked.

    Args:
        aks: the cluster.
        manifest: the Job.
        namespace: as for :func:`apply`.
        tolerate: as for :func:`apply`.
        replace: as for :func:`apply`.
        others: the other objects of the manifest, which are applied first.
    """
    flag("tolerate", tolerate)
    flag("replace", replace, optional=True)
    metadata = manifest["metadata"]
    if namespace is not None:
        metadata["namespace"] = path_names.check_namespace(namespace)
    elif metadata.get("namespace") is None:
        metadata["namespace"] = aks.kube.namespace
    job = Job(aks, metadata["name"], namespace=metadata["namespace"])
    completed = _completed(aks, manifest, tolerate)
    live = _existing(job, replace=bool(replace))
    if live is not None:
        _refuse_different(aks, manifest, completed, live)
    job.applied = apply_others(aks, others, metadata["namespace"])
    if live is None:
        for sentence in missing_objects(aks, manifest, {(obj["kind"], obj["metadata"]["name"]) for obj in others}):
            warnings.warn(sentence, stacklevel=3)
        live = _create(job, completed)
        if live is None:
            return job
        _refuse_different(aks, manifest, completed, live)
    ending = describe_ending(aks, live) if replace is None else ""
    if ending:
        # The stack level of the caller of `apply` or `submit`.
        warnings.warn(f"Job {job.name!r} {ending}. This is the old run. {REPLACE}", stacklevel=3)
    return job


def _existing(job: Job, *, replace: bool) -> Object | None:
    """Return the Job object that exists and stays; None if there is none. One that is to be replaced is deleted."""
    live = job.cluster.kube.find("Job", job.name, namespace=job.namespace)
    if live is None or not (replace or live["metadata"].get("deletionTimestamp")):
        return live
    job.delete()
    return None


def _create(job: Job, completed: Object) -> Object | None:
    """Create the Job and return None, or return the Job object that another program has created meanwhile."""
    kube = job.cluster.kube
    try:
        kube.create(completed)
    except AlreadyExists:
        # Another client, such as another kernel, created it after the lookup.
        live = kube.find("Job", job.name, namespace=job.namespace)
        if live is None:
            raise
        return live
    return None


def _completed(aks: HasKube, manifest: Object, tolerate: bool) -> Object:
    """Return the object to create: the manifest, with tolerations for its GPUs and an annotation with the manifest."""
    completed = with_applied_manifest(manifest)
    pod_spec = completed["spec"]["template"]["spec"]
    if tolerate and pod_facts.gpus(pod_spec):
        tolerate_gpu_nodes(pod_spec, read_nodes(aks))
    return completed


def _refuse_different(aks: HasKube, manifest: Object, completed: Object, live: Object) -> None:
    """Raise AlreadyExists if the Job that exists differs from the manifest."""
    fields = different_fields(manifest, completed, live)
    if not fields:
        return
    name = live["metadata"]["name"]
    ending = describe_ending(aks, live)
    state = f"{ending}; it" if ending else "exists, has not ended, and"
    raise AlreadyExists(f"Job {name!r} {state} differs in {', '.join(fields)}", hint=REPLACE)
