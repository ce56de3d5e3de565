"""The Job manifest of an Executor's run. It does not depend on what the payload does."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence

from aksgpu.common.gpu_size_table import table
from aksgpu.jobs.executor_options import ExecutorOptions
from aksgpu.kube import label_names
from aksgpu.kube.client import Object
from aksgpu.kube.node_facts import GPU
from aksgpu.payload import records
from aksgpu.payload.job_annotations import EXECUTOR, LAUNCHING, OUTPUT, PAYLOAD_SECRET

__all__ = [
    "MAIN",
    "OUT_PATH",
    "SIDECAR",
    "build_manifest",
    "is_own_variable",
    "owned_secret",
]

MAIN = "main"
"""Container of the program."""
SIDECAR = "aksgpu-result"
"""Container whose log carries a large result."""

OUT_PATH = "/aksgpu/out"
"""Where that claim is mounted. ``AKSGPU_OUT`` is the Job's directory on it."""
_PAYLOAD_PATH = "/aksgpu/payload"
_RUN_PATH = "/aksgpu/run"
_MESSAGE_PATH = "/dev/termination-log"
_SHM_PATH = "/dev/shm"
_RUNNER = f"{_PAYLOAD_PATH}/runner.py"

_OWN_PREFIX = "AKSGPU_"
"""Beginning of the names of the runner's variables."""
_DEFAULT_VARIABLES = {
    "PYTHONUNBUFFERED": "1",
    "COLUMNS": "200",
    "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
}
"""Variables that a program has unless ``options.env`` says otherwise."""
_FAILURE_COUNTS = {
    "AKSGPU_FAILURES": label_names.FAILURE_COUNT,
    "AKSGPU_DISRUPTIONS": label_names.IGNORED_FAILURE_COUNT,
}
"""Variables with annotations of the Job controller. Their sum is the number of the attempt."""
_GRACE_SECONDS = 45
"""Seconds that Kubernetes waits after SIGTERM: the runner kills the program after 30 and reports its outcome."""
_BACKSTOP_SECONDS = 1860
"""Seconds after the program's limit at which Kubernetes ends the pod. Its clock includes pulling the image."""
_SIDECAR_RESOURCES = {
    "requests": {"cpu": "10m", "memory": "32Mi"},
    "limits": {"memory": "256Mi"},
}
_FINAL_CODES = (records.PYTHON_DIFFERS, records.PAYLOAD_DAMAGED, records.PYTHON_MISSING, records.STOPPED)
"""Exit codes after which another attempt would end in the same way."""

_START = (
    'for python in python3 python; do if command -v "$python" >/dev/null 2>&1; then exec "$python" "$@"; fi; done; '
)
_NO_PYTHON = (
    'echo "[aksgpu] the image has no Python" >&2; echo "the image has no Python" >"$AKSGPU_MESSAGE"; '
    f"exit {records.PYTHON_MISSING}"
)
_WAIT_FOR_THE_END = "trap 'exit 0' TERM; while :; do sleep 1; done"


def build_manifest(
    name: str, namespace: str, options: ExecutorOptions, secrets: Sequence[str], *, environment_secret: str = ""
) -> Object:
    """Return the manifest of a suspended Job.

    Args:
        name: name of the Job.
        namespace: namespace of the Job.
        options: the Executor's options.
        secrets: names of the payload's Secrets.
        environment_secret: name of the Secret with the values of ``options.secrets``; empty if there are none.
    """
    pod_labels = {EXECUTOR: name}
    labels = {**pod_labels, LAUNCHING: "true"}
    annotations = {PAYLOAD_SECRET: secrets[0]}
    if options.out:
        annotations[OUTPUT] = options.out
    if options.queue:
        labels[label_names.QUEUE_NAME] = options.queue
    metadata = {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations}
    template = {
        "metadata": {"labels": pod_labels, "annotations": dict(label_names.DO_NOT_EVICT)},
        "spec": _pod_spec(name, options, secrets, environment_secret),
    }
    spec = {
        "suspend": True,
        "completionMode": "Indexed",
        "completions": 1,
        "parallelism": 1,
        "backoffLimitPerIndex": options.retries,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": _failure_rules()},
        "template": template,
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _failure_rules() -> list[Object]:
    """Return which ends of a pod are final, and which are no failure of the program."""
    codes = {"containerName": MAIN, "operator": "In", "values": sorted(_FINAL_CODES)}
    disruption = [{"type": "DisruptionTarget", "status": "True"}]
    return [
        {"action": "FailIndex", "onExitCodes": codes},
        {"action": "Ignore", "onPodConditions": disruption},
    ]


def _pod_spec(name: str, options: ExecutorOptions, secrets: Sequence[str], environment_secret: str) -> Object:
    main = _main_container(name, options, environment_secret)
    spec: Object = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "initContainers": [_sidecar(options)],
        "containers": [main],
        "volumes": _volumes(options, secrets),
    }
    if options.timeout is not None:
        spec["activeDeadlineSeconds"] = math.ceil(options.timeout) + _BACKSTOP_SECONDS
    if options.service_account:
        spec["serviceAccountName"] = options.service_account
    if options.priority:
        spec["priorityClassName"] = options.priority
    if options.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": each} for each in options.image_pull_secrets]
    _place(spec, options)
    return spec


# Containers


def _command(options: ExecutorOptions, task: str, without_python: str) -> list[str]:
    if options.interpreter:
        return [options.interpreter, _RUNNER, task]
    return ["sh", "-c", _START + without_python, "sh", _RUNNER, task]


def _main_container(name: str, options: ExecutorOptions, environment_secret: str) -> Object:
    container: Object = {
        "name": MAIN,
        "image": options.image,
        "command": _command(options, "run", _NO_PYTHON),
        "env": _env(name, options, environment_secret),
        "resources": _resources(options),
        "volumeMounts": [*_own_mounts(), *_user_mounts(options)],
    }
    if options.secret_names:
        container["envFrom"] = [{"secretRef": {"name": each}} for each in options.secret_names]
    return container


def _sidecar(options: ExecutorOptions) -> Object:
    """Return the native sidecar. Kubernetes starts it before the main container and stops it after that has ended."""
    return {
        "name": SIDECAR,
        "image": options.image,
        "restartPolicy": "Always",
        "command": _command(options, "result", _WAIT_FOR_THE_END),
        "env": _paths(),
        "resources": _SIDECAR_RESOURCES,
        "volumeMounts": _own_mounts(),
    }


def _paths() -> list[Object]:
    return [
        {"name": "AKSGPU_PAYLOAD", "value": _PAYLOAD_PATH},
        {"name": "AKSGPU_RUN", "value": _RUN_PATH},
        {"name": "AKSGPU_MESSAGE", "value": _MESSAGE_PATH},
    ]


def _env(job: str, options: ExecutorOptions, environment_secret: str) -> list[Object]:
    variables = {**_DEFAULT_VARIABLES, **options.env}
    if options.timeout is not None:
        variables["AKSGPU_TIMEOUT"] = str(options.timeout)
    if options.python:
        variables["AKSGPU_PYTHON"] = options.python
    if options.out:
        variables["AKSGPU_OUT"] = f"{OUT_PATH}/{job}"
    if options.workdir:
        variables["AKSGPU_WORKDIR"] = options.workdir
    found = [*_paths(), *({"name": name, "value": value} for name, value in variables.items())]
    for name, annotation in _FAILURE_COUNTS.items():
        path = f"metadata.annotations['{annotation}']"
        found.append({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
    for name in options.secrets:
        reference = {"name": environment_secret, "key": name}
        found.append({"name": name, "valueFrom": {"secretKeyRef": reference}})
    return found


def is_own_variable(name: str, value: str) -> bool:
    """Return whether a variable of the program's container is the runner's or a default, and not the user's."""
    return name.startswith(_OWN_PREFIX) or _DEFAULT_VARIABLES.get(name) == value


def _resources(options: ExecutorOptions) -> Object:
    limits: Object = dict(options.resources)
    requests: Object = {}
    if options.gpus:
        limits[GPU] = str(options.gpus)
    if options.memory:
        limits["memory"] = options.memory
        requests["memory"] = options.memory
    if options.cpu:
        requests["cpu"] = options.cpu
    return {"limits": limits, "requests": requests}


# Volumes


def _own_mounts() -> list[Object]:
    return [
        {"name": "aksgpu-payload", "mountPath": _PAYLOAD_PATH, "readOnly": True},
        {"name": "aksgpu-run", "mountPath": _RUN_PATH},
    ]


def _user_mounts(options: ExecutorOptions) -> list[Object]:
    mounts: list[Object] = [{"name": "aksgpu-shm", "mountPath": _SHM_PATH}]
    names = _claim_volumes(options)
    mounts += [{"name": names[claim], "mountPath": path} for path, claim in options.volumes.items()]
    if options.out:
        mounts.append({"name": names[options.out], "mountPath": OUT_PATH})
    return mounts


def _claim_volumes(options: ExecutorOptions) -> dict[str, str]:
    """Return the names of the pod's volumes by claim."""
    claims = sorted({*options.volumes.values(), options.out} - {""})
    return {claim: f"claim-{number}" for number, claim in enumerate(claims)}


def _volumes(options: ExecutorOptions, secrets: Sequence[str]) -> list[Object]:
    memory: Object = {"medium": "Memory"}
    if options.shm:
        memory["sizeLimit"] = options.shm
    return [
        {"name": "aksgpu-payload", "projected": {"sources": [{"secret": {"name": each}} for each in secrets]}},
        {"name": "aksgpu-run", "emptyDir": {}},
        {"name": "aksgpu-shm", "emptyDir": memory},
        *(
            {"name": name, "persistentVolumeClaim": {"claimName": claim}}
            for claim, name in _claim_volumes(options).items()
        ),
    ]


# Secrets


def owned_secret(name: str, data: Mapping[str, bytes], job: Object) -> Object:
    """Return the manifest of a Secret that is deleted with its Job.

    Args:
        name: name of the Secret.
        data: its content.
        job: the Job object, as the API server has it.
    """
    metadata = job["metadata"]
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "blockOwnerDeletion": False,
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": {EXECUTOR: metadata["name"]},
            "ownerReferences": [owner],
        },
        "type": "Opaque",
        "immutable": True,
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


# Placement


def _place(spec: Object, options: ExecutorOptions) -> None:
    """Add what restricts the pod to certain nodes."""
    selector = dict(options.node_selector)
    if options.vm_size:
        selector[label_names.INSTANCE_TYPE] = options.vm_size
    if options.spot:
        selector[label_names.SCALE_SET_PRIORITY] = "spot"
        spec["tolerations"] = [
            {
                "key": label_names.SCALE_SET_PRIORITY,
                "operator": "Equal",
                "value": "spot",
                "effect": "NoSchedule",
            }
        ]
    if selector:
        spec["nodeSelector"] = selector
    terms = _affinity_terms(options)
    if terms:
        required = {"nodeSelectorTerms": [{"matchExpressions": term} for term in terms]}
        spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def _affinity_terms(options: ExecutorOptions) -> list[list[Object]]:
    """Return alternatives of node requirements; an empty list if every node will do."""
    common: list[Object] = []
    if options.spot is False:
        common.append({"key": label_names.SCALE_SET_PRIORITY, "operator": "NotIn", "values": ["spot"]})
    if not options.gpu_model:
        return [common] if common else []
    wanted = options.gpu_model.lower()
    sizes = sorted(size.vm_size for size in table().values() if wanted in size.gpu_model.lower())
    models = sorted({size.gpu_model for size in table().values() if wanted in size.gpu_model.lower()})
    products = [model.replace(" ", "-") for model in models]
    return [
        [{"key": label_names.INSTANCE_TYPE, "operator": "In", "values": sizes}, *common],
        [{"key": "nvidia.com/gpu.product", "operator": "In", "values": products}, *common],
    ]
