"""Causes that schedulers and autoscalers name in their events: what each means, and what helps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aksgpu.common.tolerations import tolerates
from aksgpu.diagnose.cures import EDIT_JOB_SHELL, Cure, edit_job
from aksgpu.kube.taint_kinds import TaintKind, meaning

__all__ = [
    "AUTOSCALER_TEXTS",
    "CLAIMS",
    "FREE_GPU",
    "KEEP_ONE_NODE",
    "NODE_LEAVING",
    "NODE_NOT_READY",
    "NODE_PRESSURE",
    "NODE_STARTING",
    "NO_REASON",
    "ONLY_SYSTEM_NODES",
    "RESOURCE_TEXTS",
    "SCHEDULER_TEXTS",
    "SHOW_NODES",
    "TOLERATE",
    "VOLUME_ZONE",
    "SchedulingText",
    "advice",
    "taints_in",
]

_SCHEDULER = "https://kubernetes.io/docs/concepts/scheduling-eviction/kube-scheduler/"
_AUTOSCALER = "https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md"
_TAINT = re.compile(
    r"taint \{(?P<key>[^:{}\n]{1,317}): ?(?P<value>[^{}\n]{0,63})\}"
    r"|did not tolerate (?:taint \(taint=)?(?P<plain>[\w./-]{1,317})"
)


@dataclass(frozen=True)
class SchedulingText:
    """A cause in an event.

    Attributes:
        name: a few words. It is unique in its table.
        pattern: regular expression that the causes contain.
        meaning: what it means, as a sentence.
        cure: what helps.
        example: a text that has this meaning.
        near_miss: a similar text that has not.
        source: where the text is documented or reported.
    """

    name: str
    pattern: str
    meaning: str
    cure: Cure
    example: str
    near_miss: str
    source: str = _SCHEDULER

    def matches(self, text: str) -> bool:
        """Whether the causes contain the text."""
        return re.search(self.pattern, text, re.S) is not None


VOLUME_ZONE = Cure(
    "The pod's disk is in one availability zone, and a pod can use it only on a node there: add a GPU pool in the "
    "volume's "
    'zone (cluster.add_gpu_pool(aks, "gpunp2", zones=["1"])), or use Azure Files (storage class azurefile-csi), which '
    "every zone can mount. The node must have a free GPU as well: capacity.gpus(aks).",
    'from aksgpu import cluster\ncluster.add_gpu_pool(aks, "gpunp2", vm_size="Standard_NC4as_T4_v3", zones=["1"])',
    "kubectl get pv -o custom-columns=NAME:.metadata.name,CLAIM:.spec.claimRef.name,"
    "ZONE:.spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].values\n"
    "kubectl get nodes -L topology.kubernetes.io/zone",
    "The pod's disk is in one zone, and a pod can use it only on a node there: add a node with a GPU in the volume's "
    "zone, or use a volume that every zone can mount. The node must have a free GPU as well: capacity.gpus(aks).",
)
CLAIMS = Cure(
    "Create the claim that the pod names, or correct the claim or its storage class: kubectl describe pvc says why it "
    "is not bound.",
    'aks.kube.list("PersistentVolumeClaim", "NAMESPACE")',
    "kubectl get pvc --namespace NAMESPACE\nkubectl describe pvc --namespace NAMESPACE\nkubectl get storageclass",
)
TOLERATE = Cure(
    "jobs.apply(aks, manifest, replace=True) adds the tolerations that the GPU nodes call for; in a manifest for "
    "kubectl, add them under spec.template.spec.tolerations.",
    'from aksgpu import jobs\njobs.apply(aks, jobs.get(aks, "JOB", namespace="NAMESPACE").manifest(), replace=True)',
    "kubectl get nodes -o custom-columns=NAME:.metadata.name,TAINTS:.spec.taints\n" + EDIT_JOB_SHELL,
)
NODE_STARTING = Cure(
    "Wait some minutes: the node is being set up, and its taint is removed when that is done. If it takes longer than "
    "a quarter of an hour, diagnose.node(aks, 'NODE') shows what it lacks.",
    'from aksgpu import diagnose\ndiagnose.node(aks, "NODE")',
    "kubectl describe node NODE",
)
NODE_NOT_READY = Cure(
    "The nodes are not ready yet: wait some minutes if they are new, and otherwise look at them: capacity.nodes(aks), "
    "diagnose.node(aks, 'NODE'). No pod should run on them until then.",
    'from aksgpu import diagnose\ndiagnose.node(aks, "NODE")',
    "kubectl get nodes\nkubectl describe node NODE",
)
NODE_LEAVING = Cure(
    "The node is about to be removed, repaired or upgraded and takes no pods. Wait until another one is there, or add "
    "one: cluster.scale_pool(aks, 'POOL', count=2).",
    'from aksgpu import cluster\ncluster.scale_pool(aks, "POOL", count=2)',
    "az aks nodepool scale --resource-group GROUP --cluster-name CLUSTER --name POOL --node-count 2",
    "The node is about to be removed, repaired or upgraded and takes no pods. Wait until another one is there, or add "
    "one.",
)
NODE_PRESSURE = Cure(
    "The node lacks disk or memory and takes no pods until that is over: diagnose.node(aks, 'NODE') shows what it "
    "lacks. Delete what fills it, or replace it.",
    'from aksgpu import diagnose\ndiagnose.node(aks, "NODE")',
    "kubectl describe node NODE",
)
FREE_GPU = Cure(
    "capacity.gpus(aks) shows which pods use the GPUs; wait until one of them ends, or add nodes: "
    "cluster.scale_pool(aks, 'POOL', count=2).",
    'from aksgpu import capacity, cluster\ncapacity.gpus(aks)\ncluster.scale_pool(aks, "POOL", count=2)',
    "az aks nodepool scale --resource-group GROUP --cluster-name CLUSTER --name POOL --node-count 2",
    "capacity.gpus(aks) shows which pods use the GPUs; wait until one of them ends, or add a node to the cluster.",
)
SELECTOR = Cure(
    "Correct the manifest's nodeSelector or affinity: capacity.nodes(aks) shows the nodes.",
    "from aksgpu import capacity\ncapacity.nodes(aks)\n" + edit_job('pod["nodeSelector"] = {}'),
    "kubectl get nodes --show-labels\n" + EDIT_JOB_SHELL,
)


def _less(resource: str) -> Cure:
    """Return the cure for a resource other than GPUs that is short."""
    return Cure(
        f"Ask for less {resource}, wait until other pods end, or add nodes: cluster.scale_pool(aks, 'POOL', count=2). "
        "If the pod asks for more than a whole node has, which kubectl describe nodes shows under Allocatable, only "
        "less or a larger VM size helps: sizes.gpu_sizes(aks.azure, aks.location).",
        edit_job(f'pod["containers"][0]["resources"]["requests"]["{resource}"] = "1"'),
        EDIT_JOB_SHELL,
        f"Ask for less {resource}, wait until other pods end, or add a node to the cluster. If the pod asks for more "
        "than a whole node has, which kubectl describe nodes shows under Allocatable, only less or a larger "
        "node helps.",
    )


SCHEDULER_TEXTS = (
    SchedulingText(
        name="a volume in another zone",
        pattern=r"volume node affinity conflict|node affinity doesn't match node"
        r"|no available volume zone|volume\(s\)? in (?:a )?different zone",
        meaning="The pod's disk is in another availability zone than the nodes.",
        cure=VOLUME_ZONE,
        example="2 node(s) had volume node affinity conflict",
        near_miss="2 node(s) didn't match Pod's node affinity/selector",
        source="https://learn.microsoft.com/azure/aks/availability-zones",
    ),
    SchedulingText(
        name="a claim that is not bound",
        pattern=r"unbound (?:immediate )?[Pp]ersistent[Vv]olume[Cc]laims?|persistentvolumeclaim \"[\w.-]{1,253}\""
        r"|bound to "
        r"non-existent pv|didn't find available persistent volumes|ephemeral volume controller|"
        r"binding volumes: (?:timed out|context deadline|failed)|pod has unbound",
        meaning="A claim of the pod does not exist or is not bound.",
        cure=CLAIMS,
        example="pod has unbound immediate PersistentVolumeClaims",
        near_miss="1 node(s) had volume node affinity conflict",
        source="https://kubernetes.io/docs/concepts/storage/persistent-volumes/",
    ),
    SchedulingText(
        name="a claim that another pod uses",
        pattern=r"ReadWriteOncePod access mode",
        meaning="Another pod uses the claim, whose access mode allows only one.",
        cure=Cure(
            "Delete the other pod that uses the claim, or wait until it ends. For several pods, use a claim with "
            "accessModes: [ReadWriteMany] and the storage class azurefile-csi.",
            'aks.kube.list("Pod", "NAMESPACE")',
            "kubectl get pods --namespace NAMESPACE -o custom-columns=NAME:.metadata.name,"
            "CLAIMS:.spec.volumes[*].persistentVolumeClaim.claimName\nkubectl get pvc --namespace NAMESPACE",
        ),
        example="3 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
        near_miss="pod has unbound immediate PersistentVolumeClaims",
        source="https://kubernetes.io/docs/concepts/storage/persistent-volumes/#access-modes",
    ),
    SchedulingText(
        name="too many disks on the node",
        pattern=r"exceed max volume count|maximum number of (?:data )?disks",
        meaning="The nodes allow no further disk.",
        cure=Cure(
            "Use Azure Files instead of disks, or a larger VM size: the number of data disks grows with it.",
            "from aksgpu import sizes\nsizes.gpu_sizes(aks.azure, aks.location)",
            "kubectl get volumeattachments",
            "Use a volume that needs no disk of the node, or a larger node.",
        ),
        example="1 node(s) exceed max volume count",
        near_miss="1 Too many pods",
    ),
    SchedulingText(
        name="a device claim",
        pattern=r"cannot allocate all claims|[Rr]esource ?[Cc]laims?\b|unsatisfiable claim|DeviceClass",
        meaning="The pod asks for a GPU through a ResourceClaim (DRA), and no node has such a device free.",
        cure=Cure(
            "Ask for nvidia.com/gpu instead of a ResourceClaim, unless the nodes run NVIDIA's DRA driver: kubectl get "
            "resourceslices shows what it offers.",
            edit_job(
                'pod.pop("resourceClaims", None)',
                'pod["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}',
            ),
            "kubectl get resourceslices,deviceclasses\nkubectl get resourceclaims --namespace NAMESPACE",
        ),
        example="1 cannot allocate all claims",
        near_miss="no new claims to deallocate",
        source="https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/",
    ),
    SchedulingText(
        name="a scheduling gate",
        pattern=r"scheduling gates|SchedulingGated",
        meaning="The pod has scheduling gates, which a queue or another controller removes.",
        cure=Cure(
            "Wait until the queue or controller that set spec.schedulingGates removes them, or leave them out.",
            edit_job('pod.pop("schedulingGates", None)'),
            "kubectl get pod POD --namespace NAMESPACE -o jsonpath='{.spec.schedulingGates}'\n"
            "kubectl get workloads.kueue.x-k8s.io --namespace NAMESPACE",
        ),
        example="Scheduling is blocked due to non-empty scheduling gates",
        near_miss="the gate is open",
        source="https://kubernetes.io/docs/concepts/scheduling-eviction/pod-scheduling-readiness/",
    ),
    SchedulingText(
        name="no nodes",
        pattern=r"the cluster has no nodes",
        meaning="The cluster has no node that takes pods.",
        cure=Cure(
            "Start the cluster (cluster.start(aks)) or add a pool: cluster.add_gpu_pool(aks, count=1).",
            "from aksgpu import cluster\ncluster.list_pools(aks)",
            "az aks nodepool list --resource-group GROUP --cluster-name CLUSTER -o table",
            "Add a node to the cluster.",
        ),
        example="the cluster has no nodes",
        near_miss="the cluster has nodes",
    ),
    SchedulingText(
        name="a gang that is not complete",
        pattern=r"pod group is not ready|gang (?:unschedulable|scheduling)|minAvailable|PodGroup|waiting for (?:more"
        r"|other) pods of",
        meaning="The pods of the group start only together, and there is not room for all of them.",
        cure=Cure(
            "Make room for all pods of the group at once: add nodes, or use fewer pods. capacity.gpus(aks) shows what "
            "is free.",
            "from aksgpu import capacity\ncapacity.gpus(aks)",
            "kubectl get podgroups --all-namespaces",
        ),
        example="pod group is not ready, 2 Pending, 2 minAvailable; Pending: 2 Unschedulable",
        near_miss="the pod is not ready",
        source="https://volcano.sh/en/docs/podgroup/",
    ),
)
"""Causes that no free GPU removes. They are looked for first."""

RESOURCE_TEXTS = (
    SchedulingText(
        name="slices that no node has",
        pattern=r"Insufficient nvidia\.com/(?!gpu\b)[\w.-]{1,63}",
        meaning="No node has enough slices (MIG) of the kind that the pod asks for.",
        cure=Cure(
            "Ask for what capacity.gpus(aks) shows, or add a pool with that MIG profile (gpu_instance_profile).",
            'from aksgpu import capacity, cluster\ncapacity.gpus(aks)\ncluster.add_gpu_pool(aks, "mig", '
            'vm_size="Standard_NC24ads_A100_v4", gpu_instance_profile="MIG1g")',
            "kubectl get nodes -o custom-columns=NAME:.metadata.name,RESOURCES:.status.allocatable",
            "Ask for what capacity.gpus(aks) shows, or add a node that has it.",
        ),
        example="1 Insufficient nvidia.com/mig-1g.10gb",
        near_miss="1 Insufficient nvidia.com/gpu",
        source="https://learn.microsoft.com/azure/aks/gpu-multi-instance",
    ),
    SchedulingText(
        name="no free GPU",
        pattern=r"Insufficient (?:nvidia|amd)\.com/gpu",
        meaning="The nodes have no free GPU, or advertise none.",
        cure=FREE_GPU,
        example="1 Insufficient nvidia.com/gpu",
        near_miss="1 Insufficient cpu",
        source="https://github.com/NVIDIA/k8s-device-plugin/issues/430",
    ),
    SchedulingText(
        name="too little CPU",
        pattern=r"Insufficient cpu",
        meaning="The nodes have too little CPU free.",
        cure=_less("cpu"),
        example="1 Insufficient cpu",
        near_miss="1 Insufficient memory",
    ),
    SchedulingText(
        name="too little memory",
        pattern=r"Insufficient memory",
        meaning="The nodes have too little memory free.",
        cure=_less("memory"),
        example="2 Insufficient memory",
        near_miss="1 Insufficient cpu",
    ),
    SchedulingText(
        name="too little disk",
        pattern=r"Insufficient ephemeral-storage|did not have enough free storage",
        meaning="The nodes have too little disk.",
        cure=_less("ephemeral-storage"),
        example="1 Insufficient ephemeral-storage",
        near_miss="1 Insufficient cpu",
    ),
    SchedulingText(
        name="too many pods",
        pattern=r"Insufficient pods|Too many pods",
        meaning="The nodes run as many pods as they may.",
        cure=Cure(
            "Ask for fewer pods on each node, wait until other pods end, or add nodes: cluster.scale_pool(aks, 'POOL', "
            "count=2).",
            'from aksgpu import cluster\ncluster.scale_pool(aks, "POOL", count=2)',
            "az aks nodepool scale --resource-group GROUP --cluster-name CLUSTER --name POOL --node-count 2",
            "Wait until other pods end, or add a node to the cluster.",
        ),
        example="1 Too many pods",
        near_miss="1 exceed max volume count",
    ),
    SchedulingText(
        name="another resource",
        pattern=r"Insufficient [\w./-]{1,120}",
        meaning="The nodes do not have enough of a resource that the pod asks for.",
        cure=Cure(
            "Ask for what the nodes offer: kubectl describe nodes lists it under Allocatable.",
            edit_job('print(pod["containers"][0]["resources"])'),
            "kubectl get nodes -o custom-columns=NAME:.metadata.name,RESOURCES:.status.allocatable",
        ),
        example="1 Insufficient rdma/hca",
        near_miss="Sufficient resources",
    ),
    SchedulingText(
        name="a port that is taken",
        pattern=r"didn't have free ports",
        meaning="Another pod on each node uses the host port.",
        cure=Cure(
            "Leave hostPort and hostNetwork out of the manifest, or wait until the other pod ends.",
            edit_job('pod.pop("hostNetwork", None)'),
            EDIT_JOB_SHELL,
        ),
        example="1 node(s) didn't have free ports for the requested pod ports",
        near_miss="port 8080 is free",
    ),
    SchedulingText(
        name="rules between pods",
        pattern=r"pod (?:anti-)?affinity rules|anti-affinity|topology spread constraints|pod affinity",
        meaning="The pod's rules about other pods (affinity, anti-affinity, topology spread) fit no node.",
        cure=Cure(
            "Relax the rules (whenUnsatisfiable: ScheduleAnyway, preferred instead of required), or add nodes: "
            "cluster.scale_pool(aks, 'POOL', count=2).",
            edit_job('pod.pop("topologySpreadConstraints", None)', 'pod.pop("affinity", None)'),
            EDIT_JOB_SHELL,
            "Relax the rules (whenUnsatisfiable: ScheduleAnyway, preferred instead of required), or add a node.",
        ),
        example="2 node(s) didn't match pod topology spread constraints",
        near_miss="2 node(s) didn't match Pod's node affinity/selector",
    ),
    SchedulingText(
        name="cordoned nodes",
        pattern=r"were unschedulable",
        meaning="The nodes are cordoned.",
        cure=Cure(
            "kubectl uncordon NODE lets the node take pods again, unless somebody is maintaining it: "
            "capacity.nodes(aks).",
            'aks.kube.patch("Node", "NODE", {"spec": {"unschedulable": None}})',
            "kubectl uncordon NODE",
        ),
        example="1 node(s) were unschedulable",
        near_miss="1 node(s) were not ready",
    ),
    SchedulingText(
        name="a label or zone that no node has",
        pattern=r"[Pp]od'?s node affinity|node selector|didn't match node selector|node affinity/selector"
        r"|incompatible requirements|does not have known values",
        meaning="No node has the labels that the pod asks for.",
        cure=SELECTOR,
        example="4 node(s) didn't match Pod's node affinity/selector",
        near_miss="1 node(s) had volume node affinity conflict",
    ),
)
"""Causes that are looked for after taints."""

AUTOSCALER_TEXTS = (
    SchedulingText(
        name="the pool has its maximum size",
        pattern=r"max node group size|max limit reached|max(?:imum)? cluster (?:size|node count)",
        meaning="The pool has as many nodes as its autoscaler may add.",
        cure=Cure(
            "cluster.scale_pool(aks, 'POOL', min_count=0, max_count=5), for example, raises the autoscaler's limit "
            "max_count.",
            'from aksgpu import cluster\ncluster.scale_pool(aks, "POOL", min_count=0, max_count=5)',
            "az aks nodepool update --resource-group GROUP --cluster-name CLUSTER --name POOL "
            "--update-cluster-autoscaler --min-count 0 --max-count 5",
            "Raise the maximum size of the autoscaler's node group.",
        ),
        example="1 max node group size reached",
        near_miss="1 in backoff after failed scale-up",
        source=_AUTOSCALER,
    ),
    SchedulingText(
        name="the cluster has its maximum",
        pattern=r"max cluster [\w., /-]{1,80}limit reached|exceed limits for nodepool|limits? (?:of"
        r"|for) (?:the )?nodepool|"
        r"would (?:exceed|breach) (?:its )?limits",
        meaning="The autoscaler's limit of CPUs, memory or GPUs is reached.",
        cure=Cure(
            "Raise the limit (spec.limits of the NodePool with node auto-provisioning), or delete Jobs: "
            "jobs.list(aks).",
            'aks.kube.request("GET", "/apis/karpenter.sh/v1/nodepools")',
            "kubectl get nodepools.karpenter.sh -o custom-columns=NAME:.metadata.name,LIMITS:.spec.limits,"
            "USED:.status.resources",
            "Raise the autoscaler's limit, or delete Jobs: jobs.list(aks).",
        ),
        example="1 max cluster cpu, memory limit reached",
        near_miss="1 max node group size reached",
        source=_AUTOSCALER,
    ),
    SchedulingText(
        name="an earlier scale-up failed",
        pattern=r"in backoff after failed scale-up|\bbackoff\b|backed off",
        meaning="An earlier attempt to add a node failed, and the autoscaler pauses before the next one.",
        cure=Cure(
            "An earlier scale-up failed, for lack of quota, capacity or subnet addresses: look at the pool's error "
            "with cluster.get_pool(aks, 'POOL') and check the size with sizes.preflight(aks.azure, aks.location, "
            "'Standard_NC4as_T4_v3'). The autoscaler tries again after minutes, and fails again until the cause is "
            "gone.",
            'from aksgpu import cluster, sizes\npool = cluster.get_pool(aks, "POOL")\n'
            "sizes.preflight(aks.azure, aks.location, pool.vm_size, count=1)",
            "az aks nodepool show --resource-group GROUP --cluster-name CLUSTER --name POOL --query "
            "'{state:provisioningState,error:status.provisioningError}'\n"
            "kubectl get events --namespace kube-system --field-selector reason=FailedToScaleUpGroup",
            "An earlier scale-up failed, for lack of quota or capacity: kubectl describe configmap "
            "cluster-autoscaler-status --namespace kube-system shows the error. The autoscaler tries again after "
            "minutes.",
        ),
        example="1 in backoff after failed scale-up",
        near_miss="1 max node group size reached",
        source="https://github.com/2i2c-org/infrastructure/issues/2185",
    ),
    SchedulingText(
        name="the pool is not ready for the autoscaler",
        pattern=r"not ready for scale-up|node group is not (?:ready|healthy)|unhealthy node group",
        meaning="The autoscaler does not use the pool because too many of its nodes are not ready.",
        cure=NODE_NOT_READY,
        example="1 not ready for scale-up",
        near_miss="1 max node group size reached",
        source=_AUTOSCALER,
    ),
    SchedulingText(
        name="a taint of the NodePool for GPUs",
        pattern=r"did not tolerate (?:taint \(taint=)?(?:sku=gpu\b|nvidia\.com/gpu\b|amd\.com/gpu\b)",
        meaning="The pod does not tolerate the taint of the NodePool whose machines have GPUs.",
        cure=Cure(
            "Add a toleration of the taint that the message names, under spec.template.spec.tolerations. Node "
            "auto-provisioning adds no machine for a pod that could not run on it.",
            edit_job(
                'toleration = {"key": "sku", "operator": "Exists", "effect": "NoSchedule"}',
                'pod.setdefault("tolerations", []).append(toleration)',
            ),
            "kubectl get nodepools.karpenter.sh -o custom-columns=NAME:.metadata.name,TAINTS:.spec.template.spec.taints"
            "\n" + EDIT_JOB_SHELL,
        ),
        example='incompatible with nodepool "gpu", did not tolerate sku=gpu:NoSchedule',
        near_miss='incompatible with nodepool "arm", did not tolerate arch=arm64:NoSchedule',
        source="https://learn.microsoft.com/azure/aks/node-autoprovision",
    ),
    SchedulingText(
        name="node auto-provisioning finds no size",
        pattern=r"no instance type (?:satisfied|met|which|has)|no instance types? (?:meets?|that)"
        r"|incompatible with (?:nodepool|"
        r"provisioner)|all available instance types|no nodepools? (?:found|matched)"
        r"|[Nn]odePool requirements filtered out",
        meaning="No NodePool of node auto-provisioning may add a machine that fits the pod.",
        cure=Cure(
            "Add a NodePool whose requirements allow GPU sizes (karpenter.azure.com/sku-family In [N], or "
            "sku-gpu-count Gt 0) and whose taints the pod tolerates, or correct the pod's nodeSelector: "
            "diagnose.cluster(aks) shows the NodePools.",
            "from aksgpu import diagnose\ndiagnose.cluster(aks)",
            "kubectl get nodepools.karpenter.sh -o yaml\nkubectl get events --all-namespaces --field-selector "
            "reason=FailedScheduling",
        ),
        example='incompatible with nodepool "default", no instance type satisfied resources {"nvidia.com/gpu":"1"}',
        near_miss="Pod should schedule on: nodeclaim/gpu-x7k2p",
        source="https://learn.microsoft.com/azure/aks/node-autoprovision",
    ),
)
"""Causes that only autoscalers name. They are looked for before those of the scheduler."""

KEEP_ONE_NODE = Cure(
    "The autoscaler does not know that a new node would have GPUs: keep one node until a device plugin has run there: "
    "cluster.scale_pool(aks, 'POOL', min_count=1, max_count=5).",
    'from aksgpu import cluster\ncluster.scale_pool(aks, "POOL", min_count=1, max_count=5)',
    "az aks nodepool update --resource-group GROUP --cluster-name CLUSTER --name POOL --update-cluster-autoscaler "
    "--min-count 1 --max-count 5",
    "The autoscaler does not know that a new node would have GPUs: keep one node until a device plugin has run there.",
)
NO_REASON = Cure(
    "The autoscaler gives no reason. Its own report has one: the ConfigMap cluster-autoscaler-status in kube-system. "
    "Often no pool of the cluster has the GPUs that the pod asks for: capacity.gpus(aks).",
    'aks.kube.get("ConfigMap", "cluster-autoscaler-status", "kube-system")',
    "kubectl describe configmap cluster-autoscaler-status --namespace kube-system",
)
SHOW_NODES = Cure(
    "capacity.nodes(aks) shows the nodes, with their taints and GPUs.",
    "from aksgpu import capacity\ncapacity.nodes(aks)",
    "kubectl get nodes -o custom-columns=NAME:.metadata.name,TAINTS:.spec.taints,GPUS:.status.allocatable",
)
ONLY_SYSTEM_NODES = Cure(
    "Only nodes that are reserved for the system are there, and pods must not tolerate their taint. Add a GPU pool: "
    "cluster.add_gpu_pool(aks, count=1).",
    "from aksgpu import cluster\ncluster.add_gpu_pool(aks, count=1)",
    "az aks nodepool add --resource-group GROUP --cluster-name CLUSTER --name gpunp --node-vm-size "
    "Standard_NC4as_T4_v3 --node-count 1 --node-taints sku=gpu:NoSchedule",
    "Only nodes that are reserved for the system are there. Add a node with a GPU to the cluster.",
)

_TAINT_CURES = {
    TaintKind.STARTING: NODE_STARTING,
    TaintKind.NOT_READY: NODE_NOT_READY,
    TaintKind.PRESSURE: NODE_PRESSURE,
    TaintKind.REPAIRED: NODE_LEAVING,
    TaintKind.LEAVING: NODE_LEAVING,
}


def taints_in(text: str) -> list[tuple[str, str]]:
    """Return the taints that an event names, as key and value."""
    found = []
    for match in _TAINT.finditer(text):
        key = match["key"] or match["plain"].partition("=")[0].partition(":")[0]
        found.append((key, match["value"] or ""))
    return list(dict.fromkeys(found))


def advice(text: str, *, autoscaler: bool = False, tolerations: Iterable[Mapping[str, Any]] = ()) -> tuple[str, Cure]:
    """Return the name of the cause that matters, and what helps.

    Args:
        text: the causes in an event.
        autoscaler: whether an autoscaler wrote the event.
        tolerations: the pod's tolerations. Taints that they match are not the cause.
    """
    rows = (*(AUTOSCALER_TEXTS if autoscaler else ()), *SCHEDULER_TEXTS)
    for row in rows:
        if row.matches(text):
            return row.name, row.cure
    kinds = _untolerated_kinds(text, list(tolerations))
    if TaintKind.POOL in kinds:
        return "a taint that the pod does not tolerate", TOLERATE
    for row in RESOURCE_TEXTS:
        if row.matches(text):
            if autoscaler and row.name == "no free GPU":
                return "the autoscaler knows no GPU in the pool", KEEP_ONE_NODE
            return row.name, row.cure
    for kind in (TaintKind.NOT_READY, TaintKind.STARTING, TaintKind.PRESSURE, TaintKind.REPAIRED, TaintKind.LEAVING):
        if kind in kinds:
            return f"a taint of a node that is {kind}", _TAINT_CURES[kind]
    if kinds == {TaintKind.SYSTEM}:
        return "only nodes of the system", ONLY_SYSTEM_NODES
    if autoscaler and not text.strip(" .:"):
        return "the autoscaler gives no reason", NO_REASON
    return "another cause", SHOW_NODES


def _untolerated_kinds(text: str, tolerations: list[Mapping[str, Any]]) -> set[TaintKind]:
    """Return the kinds of the taints that an event names and the pod does not tolerate."""
    kinds = set()
    for key, value in taints_in(text):
        taint = {"key": key, "value": value, "effect": "NoSchedule"}
        if not tolerates(tolerations, taint):
            # No pod for Linux tolerates the taint of Windows nodes.
            kinds.add(TaintKind.SYSTEM if value == "windows" else meaning(key).kind)
    return kinds
