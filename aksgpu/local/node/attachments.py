"""Records the node that each Azure disk is attached to. A disk can be used on one node at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from aksgpu.local.control.claim_topology import DISK_PROVISIONER, PROVISIONER_ANNOTATION
from aksgpu.local.objects import Object

COMPONENT = "attachdetach-controller"
"""The component that records events about disks."""


class _User(NamedTuple):
    pod: str
    node: str


class Attachments:
    """The pods that use each disk of a cluster, with their nodes."""

    def __init__(self) -> None:
        self._users: defaultdict[str, dict[str, _User]] = defaultdict(dict)

    def attach(self, claims: Iterable[Object], pod: Object, node: str) -> str:
        """Attach the disks of a pod to its node.

        Args:
            claims: the pod's claims.
            pod: the pod.
            node: the name of its node.

        Returns:
            Kubernetes' message if a disk cannot be attached; empty if all disks are attached.
        """
        disks = [claim for claim in claims if _is_exclusive(claim)]
        for claim in disks:
            users = self._users[claim["metadata"]["uid"]].values()
            elsewhere = sorted(user.pod for user in users if user.node != node)
            if elsewhere:
                volume = claim["spec"].get("volumeName", "")
                names = ", ".join(elsewhere)
                return f'Multi-Attach error for volume "{volume}" Volume is already used by pod(s) {names}'
        for claim in disks:
            self._users[claim["metadata"]["uid"]][pod["metadata"]["uid"]] = _User(pod["metadata"]["name"], node)
        return ""

    def detach(self, uid: str) -> None:
        """Detach the disks of a pod that has ended."""
        for users in self._users.values():
            users.pop(uid, None)


def _is_exclusive(claim: Object) -> bool:
    annotations = claim["metadata"].get("annotations") or {}
    return annotations.get(PROVISIONER_ANNOTATION) == DISK_PROVISIONER
