"""Ports of a Job's pods on this machine."""

from __future__ import annotations

from aksgpu.common.arguments import integer
from aksgpu.diagnose import job_diagnosis
from aksgpu.errors import NotFound
from aksgpu.jobs.job_status import JobStatus
from aksgpu.jobs.state_explanation import StateExplanation
from aksgpu.kube.client import LARGEST_PORT, HasKube
from aksgpu.kube.port_forward import PortForward
from aksgpu.kube.websockets import ChannelSocket
from aksgpu.logs.job_logs import job_pods
from aksgpu.waiting import Timeout, check_timeout, wait_until

__all__ = ["forward"]


def forward(
    aks: HasKube, job: str, namespace: str, port: int, local_port: int, timeout: Timeout, progress: bool | None
) -> PortForward:
    """Open a port of this machine that leads to a port of a Job's pod. See :meth:`aksgpu.jobs.Job.forward`."""
    number = integer("port", port, 1, LARGEST_PORT)
    local = integer("local_port", local_port, 0, LARGEST_PORT)
    check_timeout(timeout)
    explanation = StateExplanation(lambda: job_diagnosis.job(aks, job, namespace=namespace))

    def find_pod() -> tuple[str | None, JobStatus]:
        found = aks.kube.get("Job", job, namespace)
        pods = job_pods(aks.kube, found)
        running = [pod["metadata"]["name"] for pod in pods if (pod.get("status") or {}).get("phase") == "Running"]
        status = JobStatus.from_objects(found, pods)
        if not running and status.ended:
            raise NotFound(f"job {job} has ended, so it has no pod with a port", hint="Submit it again.")
        return (running[-1] if running else None), status

    def poll() -> tuple[str | None, str]:
        pod, status = find_pod()
        return pod, "" if pod else explanation.describe(status)

    def connect() -> ChannelSocket:
        pod, _ = find_pod()
        if pod is None:
            raise NotFound(f"no pod of job {job} runs at this moment", hint="Connect again when the next attempt runs.")
        return aks.kube.open_port(pod, number, namespace)

    wait_until(poll, f"job {job}", timeout=timeout, progress=progress)
    return PortForward(connect, local)
