"""Objects that a Job's pods need and that the cluster does not have: the pods would wait for them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from aksgpu.errors import KubernetesError, NotFound
from aksgpu.kube.client import HasKube, Object

__all__ = ["missing_objects"]


@dataclass(frozen=True)
class _Reference:
    """An object that a field of a pod's spec names.

    Attributes:
        kind: the object's kind.
        name: the object's name.
        field: the field.
        cure: what to do if the object does not exist.
        may_lack_kind: whether a cluster without the kind accepts the field, as a local cluster may do.
    """

    kind: str
    name: str
    field: str
    cure: str
    may_lack_kind: bool = False


def missing_objects(aks: HasKube, job: Object, others: Collection[tuple[str, str]] = ()) -> list[str]:
    """Return a sentence for each object that a Job's pods name and the cluster does not have.

    Objects that may not be read are left out.

    Args:
        aks: the cluster.
        job: the Job, with its namespace.
        others: kind and name of the objects that are applied before the Job.
    """
    namespace = job["metadata"]["namespace"]
    sentences = []
    for reference in dict.fromkeys(_references(job["spec"]["template"]["spec"])):
        if (reference.kind, reference.name) in others or not _is_missing(aks, reference, namespace):
            continue
        sentences.append(
            f"`spec.template.spec.{reference.field}` names the {reference.kind} {reference.name!r}, which the cluster "
            f"does not have: no pod starts before it exists. {reference.cure}"
        )
    return sentences


def _is_missing(aks: HasKube, reference: _Reference, namespace: str) -> bool:
    """Return whether an object certainly does not exist."""
    try:
        aks.kube.get(reference.kind, reference.name, namespace)
    except NotFound as missing:
        has_kind = missing.http_status is not None
        return has_kind or not reference.may_lack_kind
    except KubernetesError:
        return False
    return False


def _references(spec: Object) -> Iterator[_Reference]:
    runtime = spec.get("runtimeClassName")
    if runtime:
        cure = (
            "Leave runtimeClassName out: AKS' GPU nodes need none. NVIDIA's GPU Operator creates the class 'nvidia'. "
            "In a shell: kubectl get runtimeclasses"
        )
        yield _Reference("RuntimeClass", runtime, "runtimeClassName", cure, may_lack_kind=True)
    priority = spec.get("priorityClassName")
    if priority and not priority.startswith("system-"):
        cure = f"Leave it out, or create it. In a shell: kubectl create priorityclass {priority} --value=1000"
        yield _Reference("PriorityClass", priority, "priorityClassName", cure)
    account = spec.get("serviceAccountName")
    if account and account != "default":
        cure = f"In a shell: kubectl create serviceaccount {account}"
        yield _Reference("ServiceAccount", account, "serviceAccountName", cure)
    yield from _claims(spec)
    for index, volume in enumerate(spec.get("volumes") or ()):
        if isinstance(volume, dict):
            yield from _volume_references(volume, f"volumes[{index}]")


def _claims(spec: Object) -> Iterator[_Reference]:
    """Yield the claims of dynamic resource allocation."""
    for index, claim in enumerate(spec.get("resourceClaims") or ()):
        if not isinstance(claim, dict):
            continue
        template = claim.get("resourceClaimTemplateName")
        if template:
            cure = (
                "Put the template into the same manifest, or ask for GPUs without dynamic resource allocation: "
                "resources: {limits: {nvidia.com/gpu: 1}}. In a shell: kubectl get deviceclasses"
            )
            field = f"resourceClaims[{index}].resourceClaimTemplateName"
            yield _Reference("ResourceClaimTemplate", template, field, cure)
        name = claim.get("resourceClaimName")
        if name:
            cure = "Put the claim into the same manifest. In a shell: kubectl get resourceclaims"
            yield _Reference("ResourceClaim", name, f"resourceClaims[{index}].resourceClaimName", cure)


def _volume_references(volume: Object, field: str) -> Iterator[_Reference]:
    claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
    if claim:
        cure = "Put the claim into the same manifest. In a shell: kubectl get persistentvolumeclaims"
        yield _Reference("PersistentVolumeClaim", claim, f"{field}.persistentVolumeClaim.claimName", cure)
    config = volume.get("configMap") or {}
    if config.get("name") and not config.get("optional"):
        name = config["name"]
        cure = f"In a shell: kubectl create configmap {name} --from-file=FILE"
        yield _Reference("ConfigMap", name, f"{field}.configMap.name", cure)
    secret = volume.get("secret") or {}
    if secret.get("secretName") and not secret.get("optional"):
        name = secret["secretName"]
        cure = f"In a shell: kubectl create secret generic {name} --from-file=FILE"
        yield _Reference("Secret", name, f"{field}.secret.secretName", cure)
    yield from _storage_secrets(volume, field)


def _storage_secrets(volume: Object, field: str) -> Iterator[_Reference]:
    """Yield the Secret with the key of an Azure storage account."""
    file_secret = (volume.get("azureFile") or {}).get("secretName")
    driver = volume.get("csi") or {}
    csi_secret = (driver.get("nodePublishSecretRef") or {}).get("name") or (driver.get("volumeAttributes") or {}).get(
        "secretName"
    )
    paths = {
        f"{field}.azureFile.secretName": file_secret,
        f"{field}.csi.volumeAttributes.secretName": csi_secret,
    }
    for path, name in paths.items():
        if not name:
            continue
        cure = (
            "It holds the name and the key of the storage account. In a shell: kubectl create secret generic "
            f"{name} --from-literal=azurestorageaccountname=ACCOUNT --from-literal=azurestorageaccountkey=KEY"
        )
        yield _Reference("Secret", name, path, cure)
