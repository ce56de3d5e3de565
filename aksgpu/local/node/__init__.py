"""The node agent of the laptop AKS: pods as processes of this machine.

:class:`~aksgpu.local.node.node_agent.NodeAgent` is all that others use. Inside, ``agent -> pod -> container ->
attempt``
follow the life of a pod from the cluster down to a process, which ``shim`` keeps; ``nodes`` is a node's own life, with
``devices`` and ``gpus``; ``environment`` and ``volumes`` are what a container finds; ``status`` and ``logs`` are what
is told of it.
"""

from __future__ import annotations

from aksgpu.local.node.node_agent import NodeAgent

__all__ = ["NodeAgent"]
