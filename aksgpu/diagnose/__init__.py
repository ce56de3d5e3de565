"""Explain why a Job or pod is pending or failed: one verdict, the evidence, and the call that fixes it.

diagnose.job(aks, "samples-tf-mnist-demo")
job.why()
"""

from __future__ import annotations

from aksgpu.diagnose.diagnosis import Diagnosis
from aksgpu.diagnose.explain import job, pod

__all__ = ["Diagnosis", "job", "pod"]
