"""One code and message of Azure, and what the modules of rules share: numbers, locations and hints. Sends nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from aksgpu.errors import AzureError

__all__ = [
    "FORBIDDEN",
    "LOGIN",
    "QUOTA_PAGE",
    "Refusal",
    "Rule",
    "location_in",
    "number",
    "shell",
    "size_table",
    "skus_command",
]

QUOTA_PAGE = "https://portal.azure.com/#view/Microsoft_Azure_Capacity/QuotaMenuBlade/~/myQuotas"
"""The page of the Azure portal that shows quotas and takes requests for more."""

LOGIN = (
    "Log in with `az login` (in a remote notebook: `az login --use-device-code`). Without az: "
    "from azure.identity import DeviceCodeCredential; "
    'azure = aksgpu.connect("azure", credential=DeviceCodeCredential()).'
)
"""The hint for a missing login."""

FORBIDDEN = (
    "Ask the subscription's owner for the role, or choose another subscription: "
    'azure = aksgpu.connect("azure", subscription_id=...). '
    "In a shell: az account list --output table"
)
"""The hint for a missing role."""


@dataclass(frozen=True)
class Refusal:
    """One code and message of Azure.

    Attributes:
        code: such as ``QuotaExceeded``; empty if there is none.
        message: Azure's text.
        http_status: the HTTP status of the response, or None.
    """

    code: str
    message: str
    http_status: int | None = None


Rule = Callable[[Refusal], AzureError | None]
"""A rule: it returns the exception for a refusal, or None if the refusal is about something else."""

_LOCATION = re.compile(
    r"\b(?:location|region) '{0,2}"
    r"(?P<location>[a-z]{0,20}(?:east|west|north|south|central|usgov)[a-z]{0,20}[0-9]{0,2})\b",
    re.I,
)
"""A location's name. The words are those of which Azure's names consist."""


def number(text: str | None) -> int | None:
    """Return a number of a text as an integer; None if the text has none."""
    return int(text) if text else None


def location_in(message: str) -> str:
    """Return the first location that a message names after ``location`` or ``region``; empty if it names none."""
    found = _LOCATION.search(message)
    return found["location"].lower() if found else ""


def size_table(location: str) -> str:
    """Return the call that lists the GPU sizes of a location."""
    return f"sizes.gpu_sizes(azure, {location!r})" if location else "sizes.gpu_sizes(azure, location)"


def skus_command(location: str) -> str:
    """Return the shell command that lists the GPU sizes of a location."""
    return f"az vm list-skus --location {location or 'LOCATION'} --size Standard_N --output table"


def shell(command: str) -> str:
    """Return a shell command as the last sentence of a hint. It has no full stop, so that it can be pasted."""
    return f" In a shell: {command}"
