"""The node agent of the laptop AKS: pods as processes of this machine.

:class:`~aksgpu.local.node.node_agent.NodeAgent` is the interface for other packages. Inside, ``node_agent -> pod ->
container -> container_run`` follow a pod from the cluster down to a process, which ``shim`` supervises. ``pod_context``
is what containers share. ``kubelets`` is a node itself, with ``device_manager`` and ``gpus``. ``container_spec``,
``environment``, ``volumes``, ``attachments`` and ``pod_network`` prepare a run. ``pod_status``, ``container_logs`` and
``termination_message`` report on it.
"""

from __future__ import annotations

from aksgpu.local.node.node_agent import NodeAgent

__all__ = ["NodeAgent"]
