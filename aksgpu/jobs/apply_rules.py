"""What ``jobs.apply`` does with a manifest, in sentences. Hints, the docstring and docs/jobs.md use the same ones."""

from __future__ import annotations

__all__ = ["GENERATED_NAME", "ONE_JOB", "REPLACE"]

REPLACE = "The same call with replace=True deletes the existing Job with its pods and logs, and creates a new one."
"""For a Job that exists, whether it has ended or differs."""
GENERATED_NAME = (
    "A manifest with generateName is refused, because each call would create another Job; "
    'jobs.get(aks, aks.kube.create(manifest)["metadata"]["name"]) creates one and returns it.'
)
ONE_JOB = (
    "A manifest must hold exactly one Job: call jobs.apply(aks, obj) for each Job. Other objects in the manifest are "
    "applied before the Job, in their order."
)
