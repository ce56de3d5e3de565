"""What to do with a manifest that holds no Job: how to run it as one, or what its kind needs."""

from __future__ import annotations

from dataclasses import dataclass

from aksgpu.errors import KubernetesError, NotFound
from aksgpu.kube import path_names
from aksgpu.kube.client import KINDS, HasKube, Object
from aksgpu.manifests.convert import CONVERTIBLE

__all__ = ["explain", "served_scope"]


@dataclass(frozen=True)
class _Product:
    """A program that adds kinds to a cluster.

    Attributes:
        name: its name.
        install: the shell command that installs it.
        follow: what to do once an object of its kinds exists; empty for nothing.
    """

    name: str
    install: str
    follow: str = ""


_ITS_JOB = "jobs.list(aks) shows the Job that it creates, and jobs.get(aks, name) follows it."
_PRODUCTS = {
    "kaito.sh": _Product(
        "KAITO (AKS' AI toolchain operator)",
        "az aks update --resource-group GROUP --name CLUSTER --enable-ai-toolchain-operator --enable-oidc-issuer",
        _ITS_JOB,
    ),
    "kubeflow.org": _Product(
        "Kubeflow's training operator",
        "kubectl apply --server-side --kustomize "
        '"github.com/kubeflow/training-operator.git/manifests/overlays/standalone?ref=v1.9.3"',
    ),
    "trainer.kubeflow.org": _Product(
        "Kubeflow Trainer",
        "kubectl apply --server-side --kustomize "
        '"github.com/kubeflow/trainer.git/manifests/overlays/manager?ref=v2.1.0"',
        _ITS_JOB,
    ),
    "ray.io": _Product(
        "KubeRay",
        "helm install kuberay-operator kuberay-operator --repo https://ray-project.github.io/kuberay-helm "
        "--namespace kuberay --create-namespace",
    ),
    "volcano.sh": _Product(
        "Volcano",
        "helm install volcano volcano --repo https://volcano-sh.github.io/helm-charts "
        "--namespace volcano-system --create-namespace",
    ),
    "jobset.x-k8s.io": _Product(
        "JobSet",
        "kubectl apply --server-side --filename "
        "https://github.com/kubernetes-sigs/jobset/releases/latest/download/manifests.yaml",
        _ITS_JOB,
    ),
    "kueue.x-k8s.io": _Product(
        "Kueue",
        "helm install kueue oci://registry.k8s.io/kueue/charts/kueue --namespace kueue-system --create-namespace",
    ),
    "argoproj.io": _Product(
        "Argo",
        "kubectl apply --namespace argo --filename "
        "https://github.com/argoproj/argo-workflows/releases/latest/download/install.yaml",
    ),
    "nvidia.com": _Product(
        "NVIDIA's GPU Operator",
        "helm install gpu-operator gpu-operator --repo https://helm.ngc.nvidia.com/nvidia "
        "--namespace gpu-operator --create-namespace",
    ),
    "karpenter.sh": _Product(
        "node auto-provisioning",
        "az aks update --resource-group GROUP --name CLUSTER --node-provisioning-mode Auto",
    ),
    "karpenter.azure.com": _Product(
        "node auto-provisioning",
        "az aks update --resource-group GROUP --name CLUSTER --node-provisioning-mode Auto",
    ),
    "sparkoperator.k8s.io": _Product(
        "the Spark operator",
        "helm install spark-operator spark-operator --repo https://kubeflow.github.io/spark-operator "
        "--namespace spark-operator --create-namespace",
    ),
    "leaderworkerset.x-k8s.io": _Product(
        "LeaderWorkerSet",
        "helm install lws oci://registry.k8s.io/lws/charts/lws --namespace lws-system --create-namespace",
    ),
}
"""Programs by the group of their kinds."""

_AS_JOBS = "jobs.apply(aks, manifests.as_jobs(manifest)) runs it as a Job"
_PLUGIN_IMAGE = "device-plugin"
"""Part of the image's name of device plugins."""


def explain(aks: HasKube, objects: list[Object]) -> tuple[str, str]:
    """Return what to add to the error for a manifest without a Job, and its hint.

    Args:
        aks: the cluster, which is asked whether it has the kind.
        objects: the objects of the manifest.
    """
    if _has_device_plugin(objects):
        return "", (
            "plugin.install(aks, manifest=manifest) installs a device plugin and waits until the nodes advertise GPUs. "
            "In a shell: kubectl apply --filename FILE"
        )
    main = _main(objects)
    kind = str(main.get("kind"))
    group = str(main.get("apiVersion") or "").rpartition("/")[0]
    if kind == "Kustomization":
        return "", (
            "A Kustomization only names other files. Pass the manifest that it builds. In a shell: kubectl kustomize "
            "DIRECTORY > job.yaml"
        )
    if kind == "CronJob":
        name = (main.get("metadata") or {}).get("name")
        return "", (
            f"{_AS_JOBS} once, now. aks.kube.apply(obj) creates the schedule. "
            f"In a shell: kubectl create job {name}-now --from=cronjob/{name}"
        )
    product = _product(group)
    if product is not None:
        return _about_product(aks, main, product)
    if kind in CONVERTIBLE:
        return "", (
            f"{_AS_JOBS} with the same containers. aks.kube.apply(obj) creates the {kind} as it is. "
            "In a shell: kubectl apply --filename FILE"
        )
    if "." in group and not group.endswith(".k8s.io") and _is_served(aks, main) is False:
        return f"; the cluster has no kind {kind} of {main['apiVersion']}", (
            f"Install the program that {kind} belongs to, or run its container as a Job: "
            "jobs.submit(aks, image=..., gpus=1). In a shell: kubectl api-resources"
        )
    return "", (
        "A manifest must hold one Job; the other objects in it are applied before the Job. aks.kube.apply(obj) applies "
        "an object by itself. In a shell: kubectl apply --filename FILE"
    )


def _main(objects: list[Object]) -> Object:
    """Return the object that the manifest is about: the first that runs something, or else the first."""
    for obj in objects:
        group = str(obj.get("apiVersion") or "").rpartition("/")[0]
        if str(obj.get("kind")) in CONVERTIBLE or _product(group) is not None:
            return obj
    return objects[0]


def _product(group: str) -> _Product | None:
    """Return the program that a group of kinds belongs to; None if it is not in the table."""
    while group:
        if group in _PRODUCTS:
            return _PRODUCTS[group]
        group = group.partition(".")[2]
    return None


def _about_product(aks: HasKube, obj: Object, product: _Product) -> tuple[str, str]:
    kind = obj["kind"]
    served = _is_served(aks, obj)
    run = f"{_AS_JOBS}, without it." if kind in CONVERTIBLE else ""
    run = run or "A Job needs no such program: jobs.submit(aks, image=..., gpus=1)."
    if served:
        return "", (
            f"The cluster has {product.name}: aks.kube.apply(obj) creates the {kind}. {product.follow} {run} "
            "In a shell: kubectl apply --filename FILE"
        ).replace("  ", " ")
    added = f"; the cluster has no kind {kind}: {product.name} is not installed" if served is False else ""
    return added, (
        f"{kind} is a kind of {product.name}. {run} Or install {product.name}, then aks.kube.apply(obj) creates it. "
        f"{product.follow} In a shell: {product.install}"
    ).replace("  ", " ")


def served_scope(aks: HasKube, obj: Object) -> bool | None:
    """Return whether the cluster's kind of an object has namespaces; None if the kinds could not be read.

    Raises:
        NotFound: the cluster does not have the kind.
    """
    version = str(obj.get("apiVersion") or "")
    known = KINDS.get(str(obj.get("kind")))
    if known is not None and known.api_version == version:
        return known.namespaced
    root = ["apis", *version.split("/")] if "/" in version else ["api", version]
    missing = f"the cluster has no kind {obj.get('kind')} of {version}"
    try:
        resources = aks.kube.request("GET", path_names.join(root)).get("resources") or ()
    except NotFound as absent:
        raise NotFound(missing) from absent
    except KubernetesError:
        return None
    for resource in resources:
        if resource.get("kind") == obj.get("kind"):
            return bool(resource.get("namespaced"))
    raise NotFound(missing)


def _is_served(aks: HasKube, obj: Object) -> bool | None:
    """Return whether the cluster has the kind of an object; None if the kinds could not be read."""
    try:
        return None if served_scope(aks, obj) is None else True
    except NotFound:
        return False


def _has_device_plugin(objects: list[Object]) -> bool:
    """Return whether the manifest installs a device plugin."""
    for obj in objects:
        if obj.get("kind") != "DaemonSet":
            continue
        spec = ((obj.get("spec") or {}).get("template") or {}).get("spec") or {}
        images = [str(container.get("image")) for container in spec.get("containers") or ()]
        if any(_PLUGIN_IMAGE in image for image in images):
            return True
    return False
