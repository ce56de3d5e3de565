"""What helps against a failure: a sentence, the Python code, and the shell command that does the same.

The texts contain placeholders in capital letters, such as ``POOL``. :func:`fill` replaces those that are known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "EDIT_JOB_SHELL",
    "PLACEHOLDERS",
    "RUN_AGAIN",
    "Cure",
    "edit_job",
    "fill",
]

PLACEHOLDERS = (
    "CLUSTER",
    "CONTAINER",
    "GROUP",
    "IMAGE",
    "JOB",
    "NAMESPACE",
    "NODE",
    "POD",
    "POOL",
    "REGISTRY",
    "WORKLOAD",
)
"""Names that a text may contain instead of the real ones."""
_PLACEHOLDER = re.compile(rf"\b(?:{'|'.join(PLACEHOLDERS)})\b")
_AZURE_ONLY = re.compile(r"\baz \w|\bsizes\.|\bcluster\.\w+\(|\bcapacity reservation\b")

RUN_AGAIN = "then run it again with replace=True."
"""End of a sentence that changes the program or the manifest."""


@dataclass(frozen=True)
class Cure:
    """What helps.

    Attributes:
        advice: what to do, as one or two sentences.
        python: code that does it, with ``aks`` as the cluster; empty if no call of this library does.
        shell: the commands that do the same; empty if there are none.
        other_advice: what to do on a cluster that is not managed through Azure; empty if that is the same.
    """

    advice: str
    python: str = ""
    shell: str = ""
    other_advice: str = ""

    def advice_for(self, has_azure: bool) -> str:
        """Return what to do.

        Args:
            has_azure: whether the cluster is managed through Azure.
        """
        if has_azure or not self.other_advice:
            return self.advice
        return self.other_advice

    def python_for(self, has_azure: bool) -> str:
        """Return the code; empty if it needs Azure and the cluster is not managed through Azure."""
        return "" if not has_azure and _AZURE_ONLY.search(self.python) else self.python

    def shell_for(self, has_azure: bool) -> str:
        """Return the commands; empty if they need Azure and the cluster is not managed through Azure."""
        return "" if not has_azure and _AZURE_ONLY.search(self.shell) else self.shell


def fill(text: str, names: Mapping[str, str]) -> str:
    """Replace the placeholders whose names are known. The others stay.

    Args:
        text: a sentence, code or a command.
        names: placeholder -> name. Empty names count as unknown.
    """
    return _PLACEHOLDER.sub(lambda found: names.get(found[0]) or found[0], text)


EDIT_JOB_SHELL = (
    "kubectl get job JOB --namespace NAMESPACE -o yaml > job.yaml\n"
    "# Edit job.yaml: make the change, and remove status, spec.selector and the labels with controller-uid.\n"
    "kubectl replace --force -f job.yaml"
)
"""The commands that change a Job's manifest and run it again."""


def edit_job(*lines: str) -> str:
    """Return code that changes a Job's manifest and runs it again.

    Args:
        lines: code that changes ``pod``, which is the spec of the Job's pods.
    """
    before = (
        "from aksgpu import jobs",
        'manifest = jobs.get(aks, "JOB", namespace="NAMESPACE").manifest()',
        'pod = manifest["spec"]["template"]["spec"]',
    )
    return "\n".join((*before, *lines, "jobs.apply(aks, manifest, replace=True)"))
