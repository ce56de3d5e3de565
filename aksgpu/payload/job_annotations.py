"""Labels and annotations of the objects that an Executor creates."""

from __future__ import annotations

__all__ = [
    "CANCELLED",
    "EXECUTOR",
    "FINGERPRINT",
    "FUNCTION",
    "LAUNCHING",
    "OUTPUT",
    "PACKAGES",
    "PARAMETERS",
    "PAYLOAD_SECRET",
]

EXECUTOR = "aksgpu.dev/executor"
"""Label of Jobs, pods and Secrets that an Executor made. Its value is the Job's name."""
LAUNCHING = "aksgpu.dev/launching"
"""Label of a Job whose Secrets are being created. It is removed when the Job is resumed."""
CANCELLED = "aksgpu.dev/cancelled"
"""Annotation of a Job that was cancelled before its program started."""
FUNCTION = "aksgpu.dev/function"
"""Annotation with the name of the function."""
PARAMETERS = "aksgpu.dev/parameters"
"""Annotation with the plain arguments of the call, as JSON."""
FINGERPRINT = "aksgpu.dev/fingerprint"
"""Annotation with a checksum of the call and the options."""
PACKAGES = "aksgpu.dev/packages"
"""Annotation with the packages that are installed."""
PAYLOAD_SECRET = "aksgpu.dev/payload"
"""Annotation with the name of the first Secret of the payload. It holds the key of the HMACs."""
OUTPUT = "aksgpu.dev/out"
"""Annotation with the name of the claim for output."""
