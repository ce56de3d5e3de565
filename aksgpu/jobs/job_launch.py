"""Start a run of an Executor: a suspended Job, its Secrets, then the start.

A kernel that is killed in between leaves a suspended Job, which holds no GPU. The next launch in the namespace deletes
such Jobs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta

from aksgpu.common.notices import warn
from aksgpu.errors import AlreadyExists, KubernetesError
from aksgpu.jobs.executor_arguments import LONGEST_NAME
from aksgpu.jobs.executor_manifest import MAIN, build_manifest, owned_secret
from aksgpu.jobs.executor_options import ExecutorOptions
from aksgpu.jobs.gpu_tolerations import node_share, read_nodes, tolerate_gpu_nodes
from aksgpu.jobs.job import Job
from aksgpu.jobs.job_ending import describe_ending
from aksgpu.jobs.job_outcome import was_cancelled
from aksgpu.jobs.output_claim import require_claims, warn_of_lost_results
from aksgpu.kube.client import HasKube, Object
from aksgpu.payload.job_annotations import FINGERPRINT, FUNCTION, LAUNCHING, PACKAGES, PAYLOAD_SECRET
from aksgpu.payload.packing import Payload
from aksgpu.waiting import Timer, deadline, wait_until

__all__ = ["launch", "new_name"]

_TOKEN_LETTERS = "bcdfghjkmnpqrstvwxz2456789"
"""Characters of generated names, which form no words."""
_TOKEN_LENGTH = 5
_OTHER_KERNEL_SECONDS = 60
"""Seconds that another kernel gets to finish a launch under the same name."""
_LONGEST_NAME_SHOWN = 200
"""Characters of a function's name in an annotation."""
_LONGEST_LIST = 10_000
"""Characters of a list of packages in an annotation."""
_CLEANING_SECONDS = 10.0
"""Seconds that removing an unfinished launch may take."""
_ABANDONED = timedelta(minutes=10)
"""Age at which an unfinished launch counts as abandoned."""


def launch(
    aks: HasKube,
    payload: Payload,
    options: ExecutorOptions,
    *,
    what: str,
    annotations: Mapping[str, str] | None = None,
    created: set[str] | None = None,
) -> Job:
    """Start a Job for a payload, and return it without waiting for it.

    With ``options.name``, the Job of that name is returned if it is the same run. With ``options.replace``, it is
    deleted first.

    Args:
        aks: the cluster.
        payload: what is sent to the pod.
        options: the Executor's options.
        what: the name of the function or script, for names and messages.
        annotations: further annotations of the Job.
        created: the Job's name is added to it if this call creates the Job, and does not return one that exists.

    Raises:
        AlreadyExists: the Job of that name runs something else.
        NotFound: a claim of ``volumes`` or ``out`` does not exist.
        Invalid: the API server does not accept the Job.
        Forbidden: the user may not create Jobs or Secrets, or a quota does not allow it.
    """
    namespace = options.namespace or aks.kube.namespace
    name = options.name or new_name(what)
    fingerprint = _fingerprint(payload, options)
    if options.replace:
        require_claims(aks, options, namespace)  # before the old run is lost
        Job(aks, name, namespace=namespace).delete()
    if options.name:
        existing = _existing(aks, name, namespace, fingerprint, what, options.replace)
        if existing is not None:
            return existing
    require_claims(aks, options, namespace)
    warn_of_lost_results(aks, options)
    try:
        job = _create(aks, name, namespace, payload, options, fingerprint, what, annotations or {})
        if created is not None:
            created.add(name)
        return job
    except AlreadyExists:
        # Another kernel created a Job of the user's name since it was looked up.
        existing = _existing(aks, name, namespace, fingerprint, what, False) if options.name else None
        if existing is None:
            raise
        return existing


def new_name(what: str) -> str:
    """Return a name for a Job that no other Job has, such as ``train-x7k2p``."""
    letters = re.sub(r"[^a-z0-9]+", "-", what.lower()).strip("-")
    letters = re.sub(r"^[^a-z]+", "", letters) or "job"
    prefix = letters[: LONGEST_NAME - _TOKEN_LENGTH - 1].strip("-")
    return f"{prefix}-{_token()}"


def _token() -> str:
    return "".join(secrets.choice(_TOKEN_LETTERS) for _ in range(_TOKEN_LENGTH))


def _fingerprint(payload: Payload, options: ExecutorOptions) -> str:
    """Return a checksum of what runs and how."""
    manifest = build_manifest("name", "namespace", options, ["payload"], environment_secret="environment")
    values = hashlib.sha256(json.dumps(dict(options.secrets), sort_keys=True).encode()).hexdigest()
    text = json.dumps([payload.fingerprint, manifest, values, payload.packages], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


# Creation


def _create(
    aks: HasKube,
    name: str,
    namespace: str,
    payload: Payload,
    options: ExecutorOptions,
    fingerprint: str,
    what: str,
    annotations: Mapping[str, str],
) -> Job:
    token = _token()
    contents: dict[str, Mapping[str, bytes]] = {}
    for number, files in enumerate(payload.secrets()):
        contents[f"{name}-payload-{token}-{number}"] = files
    payload_secrets = list(contents)
    environment_secret = f"{name}-env-{token}" if options.secrets else ""
    if options.secrets:
        contents[environment_secret] = {key: value.encode() for key, value in options.secrets.items()}
    manifest = build_manifest(name, namespace, options, payload_secrets, environment_secret=environment_secret)
    described = {FUNCTION: what[:_LONGEST_NAME_SHOWN], FINGERPRINT: fingerprint}
    manifest["metadata"]["annotations"] |= {**annotations, **described}
    if payload.packages.requirements:
        manifest["metadata"]["annotations"][PACKAGES] = " ".join(payload.packages.requirements)[:_LONGEST_LIST]
    if options.gpus:
        _fit_to_nodes(aks, manifest["spec"]["template"]["spec"], options)
    try:
        created = aks.kube.create(manifest)
    except KeyboardInterrupt:
        _delete_own(aks, manifest)
        raise
    try:
        for secret_name, data in contents.items():
            aks.kube.create(owned_secret(secret_name, data, created))
        _start(aks, created, options)
    except BaseException:
        # Also after an interrupt: a run that was not started leaves nothing behind.
        _delete_own(aks, manifest)
        raise
    _delete_abandoned(aks, created)
    return Job(aks, name, namespace=namespace)


def _delete_own(aks: HasKube, manifest: Object) -> None:
    """Delete the Job of a manifest, if it was created and is still the same one."""
    metadata = manifest["metadata"]
    with contextlib.suppress(KubernetesError), deadline(_CLEANING_SECONDS):
        found = aks.kube.find("Job", metadata["name"], metadata["namespace"])
        annotations = ((found or {}).get("metadata") or {}).get("annotations") or {}
        # The names of the Secrets are random, so another kernel's Job has others.
        if annotations.get(PAYLOAD_SECRET) == metadata["annotations"][PAYLOAD_SECRET]:
            aks.kube.delete("Job", metadata["name"], metadata["namespace"])


def _fit_to_nodes(aks: HasKube, pod_spec: Object, options: ExecutorOptions) -> None:
    """Add the tolerations, and the cores and memory, that fit the cluster's GPU nodes."""
    nodes = read_nodes(aks)
    if nodes is None:
        warn(
            "You may not list the cluster's nodes. The documented taints of GPU nodes are tolerated, and without cpu= "
            "and memory= nothing is reserved."
        )
    tolerate_gpu_nodes(pod_spec, nodes)
    cores, memory = node_share(nodes, options.gpus)
    main = next(container for container in pod_spec["containers"] if container["name"] == MAIN)
    requests = main["resources"]["requests"]
    if cores and not options.cpu:
        requests["cpu"] = cores
    if memory and not options.memory:
        requests["memory"] = memory


def _start(aks: HasKube, job: Object, options: ExecutorOptions) -> None:
    """Resume the Job. Kueue resumes the Jobs of its queues itself."""
    patch: Object = {"metadata": {"labels": {LAUNCHING: None}}}
    if not options.queue:
        patch["spec"] = {"suspend": False}
    metadata = job["metadata"]
    aks.kube.patch("Job", metadata["name"], patch, metadata["namespace"])


def _delete_abandoned(aks: HasKube, created: Object) -> None:
    """Delete the Jobs whose launch was not finished. Ages are differences of the API server's own times."""
    namespace = created["metadata"]["namespace"]
    now = datetime.fromisoformat(created["metadata"]["creationTimestamp"])
    with contextlib.suppress(KubernetesError):
        for job in aks.kube.list("Job", namespace, label_selector=LAUNCHING):
            metadata = job["metadata"]
            age = now - datetime.fromisoformat(metadata["creationTimestamp"])
            if age >= _ABANDONED and job["spec"].get("suspend"):
                aks.kube.delete("Job", metadata["name"], namespace)


# The same name again


def _existing(aks: HasKube, name: str, namespace: str, fingerprint: str, what: str, replace: bool | None) -> Job | None:
    """Return the Job of that name if it is the same run; None if there is none.

    Warns:
        UserWarning: it has ended, and ``replace`` is None.

    Raises:
        AlreadyExists: the Job of that name runs something else.
    """
    job = Job(aks, name, namespace=namespace)
    found = _after_launch(job)
    if found is None:
        return None
    metadata = found["metadata"]
    if metadata.get("deletionTimestamp") or LAUNCHING in (metadata.get("labels") or {}):
        job.delete()
        return None
    annotations = metadata.get("annotations") or {}
    advice = f"Executor(aks, name={name!r}, replace=True) deletes it with its pods and log, and starts a new one."
    ending = describe_ending(aks, found) or ("was cancelled before its start" if was_cancelled(found) else "")
    if annotations.get(FINGERPRINT) == fingerprint:
        if ending and replace is None:
            warn(f"Job {name!r} {ending}. This is the old run. {advice}")
        return job
    before = annotations.get(FUNCTION) or "another program"
    state = f"{ending}; it ran" if ending else "exists, has not ended, and runs"
    raise AlreadyExists(
        f"Job {name!r} {state} {before} with other code, arguments or options than this call of {what}",
        hint=f"{advice} Or use another name.",
    )


def _after_launch(job: Job) -> Object | None:
    """Return the Job object when its launch is finished, or seems abandoned; None if there is none."""
    kube = job.cluster.kube
    began = Timer(_OTHER_KERNEL_SECONDS)

    def poll() -> tuple[tuple[Object | None] | None, str]:
        found = kube.find("Job", job.name, namespace=job.namespace)
        is_launching = found is not None and LAUNCHING in (found["metadata"].get("labels") or {})
        if is_launching and began.left:
            return None, "another kernel starts it"
        return (found,), ""

    return wait_until(poll, f"job {job.name}", timeout=None, progress=False)[0]
