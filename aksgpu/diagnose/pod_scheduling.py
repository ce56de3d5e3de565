"""Explain why no node takes a pod, and which call changes that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from aksgpu.capacity import Usage
from aksgpu.common import times
from aksgpu.diagnose import node_claims, pod_volumes, provisioning_requests
from aksgpu.diagnose.cluster_reader import ClusterReader
from aksgpu.diagnose.cures import EDIT_JOB_SHELL, Cure, edit_job
from aksgpu.diagnose.diagnosis import Diagnosis, Rows
from aksgpu.diagnose.events import Event
from aksgpu.diagnose.placement import ObstacleKind, obstacles
from aksgpu.diagnose.scheduling_events import DEFAULT_POOL, read_event
from aksgpu.diagnose.scheduling_rules import NO_PLUGIN, UNHEALTHY, Situation, first_rule, first_user
from aksgpu.diagnose.scheduling_texts import SCHEDULER_TEXTS, SHOW_NODES, SchedulingText
from aksgpu.errors import GpuStackError, NoScaleUp, PodPending
from aksgpu.kube import pod_facts
from aksgpu.kube.client import Object

__all__ = ["explain_unscheduled"]

_NOT_TRIED = "the scheduler has not looked at it yet"
"""The state of a pod about which the scheduler has not reported anything."""
_MANAGED_LABEL = "kubernetes.azure.com/dcgm-exporter"
"""Label of the nodes of managed GPU pools, whose device plugin is a service of the node."""
_DEFAULT_SCHEDULERS = ("", "default-scheduler")
_SCALE_UP_TIME = timedelta(minutes=20)
"""Time that the autoscaler and Azure need at most to add a GPU node."""
_FIRST_LOOK = timedelta(minutes=2)
"""Time after which the scheduler has looked at each new pod."""
_ASK_AGAIN = Cure(
    "A user who may list nodes can find out more with the same call.",
    "",
    "kubectl auth can-i list nodes",
)
_WAIT_FOR_SCHEDULER = Cure(
    "Wait a moment and ask again.", 'from aksgpu import diagnose\ndiagnose.pod(aks, "POD", namespace="NAMESPACE")'
)
_NO_SCHEDULER = Cure(
    "The scheduler has not reported anything for minutes. Look at the pods in kube-system, and at the pod's events: "
    "kubectl describe pod POD --namespace NAMESPACE.",
    'aks.kube.list("Pod", "kube-system")',
    "kubectl describe pod POD --namespace NAMESPACE\nkubectl get pods --namespace kube-system",
)
_OTHER_SCHEDULER = Cure(
    "Leave schedulerName out of the manifest, so that the default scheduler places the pod, or install that scheduler "
    "and look at its log.",
    edit_job('pod.pop("schedulerName", None)'),
    "kubectl get pods --all-namespaces | grep -i scheduler\n" + EDIT_JOB_SHELL,
)


def explain_unscheduled(reader: ClusterReader, pod: Object, rows: Rows, events: list[Event]) -> Diagnosis:
    """Explain why a pod has no node.

    Args:
        reader: reads the cluster.
        pod: the Pod object.
        rows: the evidence that is known already, with the pod's events.
        events: the pod's events, newest last.
    """
    other = _of_another_scheduler(reader, pod, rows, events)
    if other is not None:
        return other
    requested = provisioning_requests.explain(reader, pod, rows)
    if requested is not None:
        return requested
    nodes = reader.nodes()
    if nodes is None:
        return _without_nodes(reader, pod, rows, events)
    situation = _situation(reader, pod)
    reader.know(POOL=situation.pool)
    rows = rows + _node_rows(reader, situation)
    claimed = node_claims.explain(reader, rows, events, has_gpu_node=bool(situation.candidates))
    if claimed is not None:
        return claimed
    return _with_events(reader, _explain(reader, situation, rows, events), situation, events)


def _situation(reader: ClusterReader, pod: Object) -> Situation:
    """Compare the pod with each node."""
    nodes = reader.nodes() or []
    requested = pod_facts.gpus(pod["spec"])
    used = reader.usage()
    against = {}
    for node in nodes:
        node_usage = None if used is None else used.get(node.name, Usage())
        against[node.name] = obstacles(pod["spec"], requested, node, node_usage)
    situation = Situation(pod, requested, nodes, against, used, reader.has_azure)
    return replace(situation, user_kind=_user_kind(reader, first_user(situation)))


def _user_kind(reader: ClusterReader, user: str) -> str:
    """Return the kind of what uses the GPUs: ``Job`` or ``Pod``; empty if it is another kind or not known."""
    namespace, _, name = user.partition("/")
    if not name:
        return ""
    find = reader.aks.kube.find
    if reader.attempt(f"Job {user}", lambda: find("Job", name, namespace)) is not None:
        return "Job"
    if reader.attempt(f"pod {user}", lambda: find("Pod", name, namespace)) is not None:
        return "Pod"
    return ""


def _of_another_scheduler(reader: ClusterReader, pod: Object, rows: Rows, events: list[Event]) -> Diagnosis | None:
    """Explain a pod whose scheduler is not that of Kubernetes and has not reported; None for other pods."""
    name = str(pod["spec"].get("schedulerName") or "")
    reported = [event for event in events if event.reason in ("FailedScheduling", "Unschedulable", "Scheduled")]
    if name in _DEFAULT_SCHEDULERS or reported or _scheduler_message(pod):
        return None
    verdict = f"The pod is for the scheduler {name!r}, which has not reported anything about it."
    return reader.diagnosis(verdict, _OTHER_SCHEDULER, rows, error=PodPending, cause="another scheduler")


def _scheduler_message(pod: Object) -> str:
    """Return what the scheduler last reported in the pod's status; empty if it has not reported anything."""
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message") or "")
    return ""


def _without_nodes(reader: ClusterReader, pod: Object, rows: Rows, events: list[Event]) -> Diagnosis:
    """Return the diagnosis if the nodes cannot be read: the scheduler's message is all that is known."""
    message = _scheduler_message(pod) or _NOT_TRIED
    verdict = f"The pod is not scheduled: {message}"
    diagnosis = reader.diagnosis(verdict, _ASK_AGAIN, rows, error=PodPending)
    situation = Situation(pod, pod_facts.gpus(pod["spec"]), [], {}, None, reader.has_azure)
    return _with_events(reader, diagnosis, situation, events)


def _node_rows(reader: ClusterReader, situation: Situation) -> Rows:
    """Return one row of evidence for each node."""
    rows = []
    for name, found in situation.obstacles.items():
        texts = [obstacle.text for obstacle in found]
        texts += [problem.failure.verdict for problem in reader.problems.get(name, ())]
        rows.append((f"node {name}", "; ".join(texts) or "would fit"))
    return tuple(rows)


def _explain(reader: ClusterReader, situation: Situation, rows: Rows, events: list[Event]) -> Diagnosis:
    """Return the verdict of the scheduler's hard causes, of the first rule that applies, or of its message."""
    message = _scheduler_message(situation.pod) or _newest_message(events)
    hard = _hard_cause(message)
    if hard is not None:
        return _explain_hard_cause(reader, situation, hard, message, rows)
    if situation.requested and not situation.candidates:
        verdict = f"The pod wants {situation.count} {situation.resource}, and the cluster has no GPU node."
        return _pending(reader, situation, verdict, _add_gpu_node(situation), rows, "no GPU node")
    rule = first_rule(situation)
    if rule is None:
        verdict = f"The pod is not scheduled: {message or _NOT_TRIED}"
        name, cure = _cure_for_message(situation, message)
        return _pending(reader, situation, verdict, cure, rows, name)
    if rule.name == UNHEALTHY and not _has_plugin(reader, _nodes_with(situation, {ObstacleKind.UNHEALTHY})):
        # The kubelet reports no healthy GPU also when the plugin has gone.
        rule = NO_PLUGIN
    verdict = f"The pod is not scheduled: {rule.verdict(situation)}."
    cure = rule.cure(situation)
    if issubclass(rule.error, GpuStackError):
        sick = _nodes_with(situation, {ObstacleKind.NO_PLUGIN, ObstacleKind.UNHEALTHY})
        return _explain_sick_nodes(reader, rule.error, sick, verdict, cure, rows, rule.name)
    return _pending(reader, situation, verdict, cure, rows, rule.name)


def _has_plugin(reader: ClusterReader, nodes: tuple[str, ...]) -> bool:
    """Whether a device plugin runs on one of the nodes, as a pod or as the service of a managed pool."""
    if any(node.labels.get(_MANAGED_LABEL) for node in reader.nodes() or () if node.name in nodes):
        return True

    def fetch() -> list[Object]:
        return reader.aks.kube.list("Pod", all_namespaces=True, field_selector=f"spec.nodeName={nodes[0]}")

    pods = reader.attempt(f"the pods of node {nodes[0]}", fetch)
    if pods is None:
        return True
    for pod in pods:
        images = [str(container.get("image")) for container in pod["spec"]["containers"]]
        if any("device-plugin" in image for image in images) and not pod_facts.ended(pod):
            return True
    return False


def _explain_sick_nodes(
    reader: ClusterReader,
    kind: type[GpuStackError],
    nodes: tuple[str, ...],
    verdict: str,
    cure: Cure,
    rows: Rows,
    name: str,
) -> Diagnosis:
    """Explain GPUs that nodes do not advertise, by a condition of the nodes if one says why."""
    for node in nodes:
        for problem in reader.problems.get(node, ()):
            if problem.about_gpus:
                reader.know(NODE=node)
                text = f"{verdict.rstrip('.')}; node {node} reports: {problem.failure.verdict}."
                return reader.known_failure(text, problem.failure, rows, nodes=nodes)
    return reader.diagnosis(
        verdict, cure, rows, error=lambda text, hint: kind(text, hint=hint, nodes=nodes), cause=name
    )


def _pending(reader: ClusterReader, situation: Situation, verdict: str, cure: Cure, rows: Rows, name: str) -> Diagnosis:
    count = len(situation.nodes) or None
    return reader.diagnosis(
        verdict, cure, rows, error=lambda text, hint: PodPending(text, hint=hint, nodes=count), cause=name
    )


def _nodes_with(situation: Situation, kinds: set[ObstacleKind]) -> tuple[str, ...]:
    """Return the names of the nodes that have an obstacle of one of the kinds."""
    names = [name for name, found in situation.obstacles.items() if any(obstacle.kind in kinds for obstacle in found)]
    return tuple(sorted(names))


def _newest_message(events: Iterable[Event]) -> str:
    """Return the newest message of a scheduler."""
    messages = [event.message for event in events if event.reason in ("FailedScheduling", "Unschedulable")]
    return messages[-1] if messages else ""


def _hard_cause(message: str) -> SchedulingText | None:
    """Return the cause in the scheduler's message that no free GPU removes; None if there is none."""
    reading = read_event("FailedScheduling", message)
    causes = " ".join(reading.error.causes) if reading and reading.error.causes else message.partition("preemption:")[0]
    causes = causes.replace("no new claims to deallocate", "")
    return next((row for row in SCHEDULER_TEXTS if row.matches(causes)), None)


def _explain_hard_cause(
    reader: ClusterReader, situation: Situation, cause: SchedulingText, message: str, rows: Rows
) -> Diagnosis:
    """Explain a pod whose scheduler names a cause that no free GPU removes, such as a volume in another zone."""
    verdict = f"The pod is not scheduled: {message}"
    cure = cause.cure
    if cause.name == "a volume in another zone":
        found = pod_volumes.zones(reader, situation.pod)
        cure = pod_volumes.zone_cure(found)
        verdict = f"{verdict.rstrip('.')}. {pod_volumes.describe(found, situation.candidates)}"
        rows = rows + pod_volumes.rows(found)
    if cause.name == "a claim that is not bound":
        rows = rows + pod_volumes.claim_rows(reader, situation.pod)
    return _pending(reader, situation, verdict, cure, rows, cause.name)


def _add_gpu_node(situation: Situation) -> Cure:
    """Return what to do if the cluster has no GPU node."""
    ready = [node.name for node in situation.nodes if node.usable]
    node = ready[0] if ready else "NODE"
    other = (
        "Add a node with a GPU to the cluster, then plugin.install(aks). On a test cluster without GPUs, "
        f"capacity.advertise(aks, {node!r}) writes one into a node's status: pods are scheduled, and find no GPU."
    )
    return Cure(
        "cluster.add_gpu_pool(aks, count=1) adds a GPU node.",
        "from aksgpu import cluster\ncluster.add_gpu_pool(aks, count=1)",
        "az aks nodepool add --resource-group GROUP --cluster-name CLUSTER --name gpunp --node-vm-size "
        "Standard_NC4as_T4_v3 --node-count 1 --node-taints sku=gpu:NoSchedule",
        other,
    )


def _cure_for_message(situation: Situation, message: str) -> tuple[str, Cure]:
    """Return the cause and what to do about the scheduler's message, if no rule applies."""
    if not message:
        return _not_looked_at(situation.pod)
    reading = read_event("FailedScheduling", message, tolerations=situation.pod["spec"].get("tolerations") or ())
    if reading is None:
        return "another cause", SHOW_NODES
    count = sum(node.pool == situation.pool for node in situation.nodes) + 1
    return reading.name, _with_count(reading.cure, count)


def _with_count(cure: Cure, count: int) -> Cure:
    """Return a cure that adds a node to a pool, with the number of nodes that the pool then has."""
    return replace(
        cure,
        advice=cure.advice.replace("'POOL', count=2", f"'POOL', count={count}"),
        python=cure.python.replace('"POOL", count=2', f'"POOL", count={count}'),
        shell=cure.shell.replace("--node-count 2", f"--node-count {count}"),
    )


def _not_looked_at(pod: Object) -> tuple[str, Cure]:
    """Return what to do if the scheduler has not reported anything. With an old pod, somebody must look."""
    created = times.parse(pod["metadata"].get("creationTimestamp"))
    if created is None or datetime.now(UTC) - created < _FIRST_LOOK:
        return "the scheduler has not looked yet", _WAIT_FOR_SCHEDULER
    return "the scheduler does not report", _NO_SCHEDULER


# The events


def _with_events(reader: ClusterReader, diagnosis: Diagnosis, situation: Situation, events: list[Event]) -> Diagnosis:
    """Return the diagnosis with what the events of the scheduler and the autoscaler add to it.

    Args:
        reader: reads the cluster.
        diagnosis: the verdict.
        situation: the pod and the nodes.
        events: the pod's events, newest last.
    """
    tolerations = situation.pod["spec"].get("tolerations") or ()
    pool = situation.pool or DEFAULT_POOL
    scaling: Event | None = None
    refused = None
    counted: PodPending | None = None
    for event in events:
        if event.reason == "TriggeredScaleUp":
            scaling = event
            refused = None
            continue
        reading = read_event(
            event.reason, event.message, pool=pool, has_azure=reader.has_azure, tolerations=tolerations
        )
        if reading is None:
            continue
        if isinstance(reading.error, NoScaleUp):
            refused = reading
        else:
            counted = reading.error
    if refused is not None:
        return _not_scaled(reader, diagnosis, refused.error, refused.name, refused.cure)
    if scaling is not None:
        return _scaling(reader, diagnosis, scaling)
    if counted is None or not isinstance(diagnosis.error, PodPending):
        return diagnosis
    return replace(
        diagnosis,
        error=PodPending(diagnosis.verdict, hint=diagnosis.fix, causes=counted.causes, nodes=counted.nodes),
    )


def _not_scaled(reader: ClusterReader, diagnosis: Diagnosis, error: PodPending, name: str, cure: Cure) -> Diagnosis:
    """Return the diagnosis of a pod for which the autoscaler adds no node, with the state of the pool."""
    reader.names.setdefault("POOL", DEFAULT_POOL)
    verdict = f"{diagnosis.verdict.rstrip('.')}; {error.message}."
    rows = diagnosis.rows
    if name == "an earlier scale-up failed":
        rows = rows + reader.pool_rows()
    return reader.diagnosis(
        verdict,
        cure,
        rows,
        error=lambda text, hint: NoScaleUp(text, hint=hint, causes=error.causes),
        cause=name,
    )


def _scaling(reader: ClusterReader, diagnosis: Diagnosis, event: Event) -> Diagnosis:
    """Return the diagnosis of a pod for which the autoscaler adds a node. After a while, waiting does not help."""
    age = None if event.time is None else datetime.now(UTC) - event.time
    if age is None or age < _SCALE_UP_TIME:
        cure = Cure(
            "Wait: the autoscaler is adding a node, which takes some minutes.",
            "from aksgpu import capacity\ncapacity.wait_schedulable(aks)",
            "kubectl get nodes --watch",
        )
        return replace(
            reader.diagnosis(diagnosis.verdict, cure, diagnosis.rows, error=PodPending), cause="a node is being added"
        )
    minutes = int(age.total_seconds() // 60)
    verdict = (
        f"{diagnosis.verdict.rstrip('.')}; the autoscaler began to add a node {minutes} minutes ago, and none has come."
    )
    cure = Cure(
        "Waiting does not help any more. Look at the pool's error: cluster.get_pool(aks, 'POOL'); and check the size: "
        "sizes.preflight(aks.azure, aks.location, 'Standard_NC4as_T4_v3').",
        'from aksgpu import cluster\ncluster.get_pool(aks, "POOL")',
        "az aks nodepool show --resource-group GROUP --cluster-name CLUSTER --name POOL --query "
        "'{state:provisioningState,error:status.provisioningError}'",
        "Waiting does not help any more: kubectl describe configmap cluster-autoscaler-status --namespace kube-system "
        "shows the autoscaler's error.",
    )
    reader.names.setdefault("POOL", DEFAULT_POOL)
    return reader.diagnosis(
        verdict, cure, diagnosis.rows + reader.pool_rows(), error=NoScaleUp, cause="a node that does not come"
    )
