"""Write Pods, CronJobs and other kinds that run one container as Jobs. Sends nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aksgpu.errors import InvalidInput
from aksgpu.manifests.load import Manifest, documents

__all__ = ["CONVERTIBLE", "as_jobs"]

Object = dict[str, Any]

_REPLICA_SPECS = {
    "PyTorchJob": "pytorchReplicaSpecs",
    "TFJob": "tfReplicaSpecs",
    "XGBoostJob": "xgbReplicaSpecs",
    "PaddleJob": "paddleReplicaSpecs",
    "JAXJob": "jaxReplicaSpecs",
}
"""Kinds of Kubeflow's training operator, with the field that holds their replicas."""


def as_jobs(manifest: Manifest) -> list[Object]:
    """Return the objects of a manifest, with each object that runs a container as a Job.

    Pods, CronJobs, Deployments, ReplicaSets, StatefulSets and Kubeflow's training jobs of one replica become Jobs that
    run once, without retries. Other objects, such as Services and ConfigMaps, stay as they are.

    Args:
        manifest: an object, a list of objects, YAML text, or the path of a YAML file.

    Raises:
        InvalidInput: the manifest cannot be read, lacks a pod template, or has a training job of several replicas.

    Example:
        >>> pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "test"}, "spec": {"containers": []}}
        >>> manifests.as_jobs(pod)[0]["kind"]
        'Job'
    """
    return [_converted(obj) for obj in documents(manifest)]


def _converted(obj: Object) -> Object:
    convert = CONVERTIBLE.get(str(obj.get("kind")))
    return obj if convert is None else convert(obj)


def _from_pod(pod: Object) -> Object:
    metadata = _mapping(pod, "metadata")
    template = {"metadata": _kept(metadata, "labels", "annotations"), "spec": _mapping(pod, "spec")}
    return _job(metadata, template)


def _from_cron_job(cron_job: Object) -> Object:
    spec = _mapping(_mapping(_mapping(cron_job, "spec"), "jobTemplate", "spec"), "spec", "spec.jobTemplate")
    job = _job(_mapping(cron_job, "metadata"), _mapping(spec, "template", "spec.jobTemplate.spec"))
    job["spec"] = {**spec, "template": job["spec"]["template"]}
    return job


def _from_workload(workload: Object) -> Object:
    return _job(_mapping(workload, "metadata"), _mapping(_mapping(workload, "spec"), "template", "spec"))


def _from_training_job(training: Object) -> Object:
    field = _REPLICA_SPECS[training["kind"]]
    replicas = _mapping(_mapping(training, "spec"), field, "spec")
    counts = {role: spec.get("replicas", 1) for role, spec in replicas.items() if isinstance(spec, Mapping)}
    if sum(counts.values()) != 1:
        given = ", ".join(f"{role} {count}" for role, count in counts.items()) or "none"
        raise InvalidInput(
            f"`spec.{field}` must have one replica to become a Job, got {given}",
            hint="Several replicas need the training operator, or an Indexed Job with a headless Service.",
        )
    role = next(role for role, count in counts.items() if count)
    template = _mapping(replicas[role], "template", f"spec.{field}.{role}")
    spec = _mapping(template, "spec", f"spec.{field}.{role}.template")
    spec.setdefault("restartPolicy", replicas[role].get("restartPolicy"))
    return _job(_mapping(training, "metadata"), template)


CONVERTIBLE: dict[str, Callable[[Object], Object]] = {
    "Pod": _from_pod,
    "CronJob": _from_cron_job,
    "Deployment": _from_workload,
    "ReplicaSet": _from_workload,
    "StatefulSet": _from_workload,
    **dict.fromkeys(_REPLICA_SPECS, _from_training_job),
}
"""The kinds that :func:`as_jobs` writes as Jobs, each with its function."""


def _job(metadata: Mapping[str, Any], template: Mapping[str, Any]) -> Object:
    """Return a Job with the name, the namespace and the labels of another object."""
    spec = dict(_mapping(template, "spec", "the pod template"))
    if spec.get("restartPolicy") not in ("Never", "OnFailure"):
        spec["restartPolicy"] = "Never"  # a Job's pods may not be restarted for ever
    kept = _kept(metadata, "name", "namespace", "labels")
    if "name" not in kept and metadata.get("generateName"):
        kept["name"] = str(metadata["generateName"]).strip("-")
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": kept,
        "spec": {
            "backoffLimit": 0,
            "template": {"metadata": dict(template.get("metadata") or {}), "spec": spec},
        },
    }


def _kept(metadata: Mapping[str, Any], *fields: str) -> Object:
    return {field: metadata[field] for field in fields if metadata.get(field)}


def _mapping(parent: Mapping[str, Any], field: str, where: str = "") -> Object:
    """Return a field that must be a mapping."""
    value = parent.get(field)
    if isinstance(value, dict):
        return value
    path = f"{where}.{field}" if where else field
    raise InvalidInput(f"`{path}` must be a mapping, got {value!r:.80}", hint="manifests.mnist() is a complete Job.")
