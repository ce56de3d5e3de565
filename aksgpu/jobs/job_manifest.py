"""Check a Job's manifest before any request is sent, so that an error names the field and what it must be."""

from __future__ import annotations

from typing import Any

from aksgpu.common.arguments import shown
from aksgpu.errors import InvalidInput
from aksgpu.jobs import job_arguments
from aksgpu.jobs.apply_rules import GENERATED_NAME
from aksgpu.jobs.live_manifest import without_added_fields
from aksgpu.jobs.manifest_diff import quantities_as_text
from aksgpu.jobs.misplaced_fields import check_container_level, check_gpu_limits, check_pod_level
from aksgpu.kube import path_names
from aksgpu.kube.client import Object
from aksgpu.kube.node_facts import gpus_of

__all__ = ["check_job"]

_EXAMPLE = "aksgpu.manifests.mnist() is an example."
_OLD_GPU = "alpha.kubernetes.io/nvidia-gpu"
"""The resource of GPUs before Kubernetes 1.11. No node has it."""


def check_job(job: Object) -> Object:
    """Check a Job's fields, and return the Job with its quantities as strings. It is changed in place.

    Fields that the cluster added to a Job, as in the output of ``kubectl get --output yaml``, are removed.

    Raises:
        InvalidInput: a field is not valid.
    """
    if job.get("apiVersion") != "batch/v1":
        raise InvalidInput(
            f"`apiVersion` must be 'batch/v1', got {job.get('apiVersion')!r}", hint="Write apiVersion: batch/v1."
        )
    _check_metadata(job.setdefault("metadata", {}))
    without_added_fields(job)
    _check_pod_spec(_pod_spec(job), "spec.template.spec")
    job_arguments.quantities(job["spec"], "spec")
    quantities_as_text(job)
    return job


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict):
        raise InvalidInput(f"`metadata` must be a mapping, got {metadata!r:.80}", hint="metadata: {name: training-1}")
    if metadata.get("name") is None and metadata.get("generateName"):
        raise InvalidInput(
            f"`metadata.name` must be given, got `generateName` {shown(metadata['generateName'])}", hint=GENERATED_NAME
        )
    _check_rendered(metadata.get("name"))
    job_arguments.new_job_name(metadata.get("name"), "metadata.name")
    if metadata.get("namespace") is not None:
        path_names.check_namespace(metadata["namespace"], "metadata.namespace")
    for key in ("labels", "annotations"):
        _check_strings(metadata.get(key) or {}, f"metadata.{key}")


def _check_strings(values: Any, path: str) -> None:
    """Check that a field is a mapping of strings."""
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise InvalidInput(
            f"`{path}` must be a mapping of strings, got {values!r:.80}",
            hint='Write numbers and booleans in quotes, such as "1" and "true".',
        )


def _check_rendered(name: Any) -> None:
    """Check that a Job's name is not the placeholder of a template."""
    if isinstance(name, str) and ("{{" in name or "${" in name):
        tool = "helm template NAME CHART" if "{{" in name else "envsubst < FILE"
        raise InvalidInput(
            f"`metadata.name` must be a name, got the placeholder {shown(name)}",
            hint=f"Fill in the template first. In a shell: {tool} > job.yaml",
        )


def _pod_spec(job: Object) -> Object:
    """Return the spec of the Job's pods."""
    path = ""
    value: Any = job
    for key in ("spec", "template", "spec"):
        path = f"{path}.{key}" if path else key
        value = value.get(key)
        if not isinstance(value, dict) or not value:
            raise InvalidInput(f"`{path}` must be a mapping that is not empty, got {value!r:.80}", hint=_EXAMPLE)
    if not value.get("containers"):
        raise InvalidInput(f"`{path}.containers` must not be empty, got {value.get('containers')!r:.80}", hint=_EXAMPLE)
    pod_spec: Object = value
    return pod_spec


def _check_pod_spec(pod_spec: Object, path: str) -> None:
    _check_resources(pod_spec.get("resources") or {}, f"{path}.resources")
    check_pod_level(pod_spec, path)
    _check_strings(pod_spec.get("nodeSelector") or {}, f"{path}.nodeSelector")
    _mappings(pod_spec.get("tolerations"), f"{path}.tolerations", hint="- {key: sku, value: gpu}")
    for field in ("initContainers", "containers"):
        containers = _mappings(pod_spec.get(field), f"{path}.{field}", hint="- name: main")
        for index, container in enumerate(containers):
            _check_container(container, f"{path}.{field}[{index}]")
            check_container_level(container, f"{path}.{field}[{index}]", path)
            for name in ("limits", "requests"):
                where = f"`{path}.{field}[{index}].resources.{name}`"
                gpus_of((container.get("resources") or {}).get(name), where)
            check_gpu_limits(container.get("resources") or {}, f"{path}.{field}[{index}].resources")


def _mappings(value: Any, path: str, *, hint: str) -> list[Object]:
    """Return a field that must be a list of mappings; an empty list if it is not set."""
    items = value or []
    if isinstance(items, list) and all(isinstance(item, dict) for item in items):
        return items
    raise InvalidInput(f"`{path}` must be a list of mappings, got {items!r:.80}", hint=hint)


def _check_container(container: Object, path: str) -> None:
    _check_resources(container.get("resources") or {}, f"{path}.resources")
    for field in ("command", "args"):
        if container.get(field) is not None:
            job_arguments.sequence_of_texts(f"{path}.{field}", container[field])
    variables = container.get("env")
    if not isinstance(variables, list):
        return
    for index, variable in enumerate(variables):
        if isinstance(variable, dict):
            _check_env_value(variable.get("value"), f"{path}.env[{index}].value")


def _check_env_value(value: Any, path: str) -> None:
    if value is None or isinstance(value, str):
        return
    text = str(value).lower() if isinstance(value, bool) else str(value)
    raise InvalidInput(f"`{path}` must be a string, got {value!r:.80}", hint=f'Write it in quotes: value: "{text}".')


def _check_resources(resources: Any, path: str) -> None:
    if not isinstance(resources, dict):
        raise InvalidInput(f"`{path}` must be a mapping, got {resources!r:.80}", hint="resources: {limits: {cpu: 1}}")
    for field in ("limits", "requests"):
        amounts = resources.get(field) or {}
        if not isinstance(amounts, dict):
            raise InvalidInput(f"`{path}.{field}` must be a mapping, got {amounts!r:.80}", hint="limits: {cpu: 1}")
        if _OLD_GPU in amounts:
            raise InvalidInput(
                f"`{path}.{field}` must name GPUs as nvidia.com/gpu, got {_OLD_GPU}, which no node has",
                hint=f"limits: {{nvidia.com/gpu: {amounts[_OLD_GPU]}}}. In a shell: "
                f"sed --in-place s,{_OLD_GPU},nvidia.com/gpu, FILE",
            )
