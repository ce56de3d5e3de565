"""One row of the table of failure texts: how a text is recognised, what it means, and what helps."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

from aksgpu import errors
from aksgpu.diagnose.cures import Cure

__all__ = ["EVERYWHERE", "Failure", "FailureText", "Place", "Weight", "first_match"]


class Place(StrEnum):
    """Where a text appears."""

    LOG = "log"
    """The log of a program, of the device plugin, or of a node's kernel."""
    EVENT = "event"
    """The message of an event of a pod or of a Job."""
    CONTAINER = "container"
    """The message of a container that waits or has ended."""
    POD = "pod"
    """The reason and the message of a pod that the node has refused or ended."""
    CONDITION = "condition"
    """A condition of a node."""


_NUMBERS = ("xid",)
"""Attributes of exceptions that are integers."""
EVERYWHERE = frozenset(Place)
"""All places."""


class Weight(Enum):
    """How much a text explains."""

    CAUSE = 1
    """It is the reason why the program ended."""
    SYMPTOM = 2
    """It follows from a failure elsewhere, such as in another process of the same training. A cause comes first."""
    WARNING = 3
    """The program continues. It explains a failure only if nothing else does."""


@dataclass(frozen=True)
class Failure:
    """A failure that a text shows.

    Attributes:
        kind: the exception class that represents it.
        verdict: what is wrong, as a clause.
        cure: what helps.
        name: the name of the row in the table.
        facts: attributes of the exception, read from the text.
        weight: how much the text explains.
        source: where the text is documented or reported.
        start: the position of the text.
    """

    kind: type[errors.AksGpuError]
    verdict: str
    cure: Cure
    name: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    weight: Weight = Weight.CAUSE
    source: str = ""
    start: int = 0

    @property
    def fix(self) -> str:
        """What to do, as an action, on a cluster that is managed through Azure."""
        return self.cure.advice

    def fix_for(self, has_azure: bool) -> str:
        """Return what to do, as an action.

        Args:
            has_azure: whether the cluster is managed through Azure.
        """
        return self.cure.advice_for(has_azure)

    def error(self, message: str = "", *, hint: str = "", has_azure: bool = True) -> errors.AksGpuError:
        """Return the exception, with the verdict as its message if none is given."""
        text = message or f"{self.verdict[0].upper()}{self.verdict[1:]}."
        return self.kind(text, hint=hint or self.fix_for(has_azure), **self.facts)


@dataclass(frozen=True)
class FailureText:
    """A failure, and how its text is recognised.

    Attributes:
        name: a few words. It is unique in the table.
        pattern: regular expression that the text contains. Its named groups become attributes of the exception; a
            group whose name ends with ``_`` only appears in the verdict.
        verdict: what is wrong, as a clause. ``{name}`` is replaced by the group of that name.
        cure: what helps.
        example: a text that has this meaning.
        near_miss: a similar text that has not.
        source: where the text is documented or reported.
        kind: the exception class that represents the failure.
        places: where the text counts.
        weight: how much the text explains.
        case: whether upper and lower case differ.
    """

    name: str
    pattern: str
    verdict: str
    cure: Cure
    example: str
    near_miss: str
    source: str
    kind: type[errors.AksGpuError] = errors.JobFailed
    places: frozenset[Place] = frozenset({Place.LOG, Place.CONTAINER})
    weight: Weight = Weight.CAUSE
    case: bool = True

    def find(self, text: str) -> Failure | None:
        """Return the failure if the text shows it, else None."""
        match = re.search(self.pattern, text, re.S if self.case else re.S | re.I)
        if match is None:
            return None
        groups = {name: value for name, value in match.groupdict().items() if value}
        facts: dict[str, Any] = {}
        for name, value in groups.items():
            if not name.endswith("_"):
                facts[name] = int(value) if name in _NUMBERS else value
        return Failure(
            self.kind, self._verdict(groups), self.cure, self.name, facts, self.weight, self.source, match.start()
        )

    def _verdict(self, groups: dict[str, str]) -> str:
        """Return the verdict with what the text names. A part in ``[...]`` is left out if its group is missing."""
        verdict = re.sub(
            r"\[([^\[\]{}]*)\{(\w+)\}([^\[\]{}]*)\]",
            lambda part: f"{part[1]}{groups[part[2]]}{part[3]}" if part[2] in groups else "",
            self.verdict,
        )
        return re.sub(r"\{(\w+)\}", lambda part: groups.get(part[1], "?"), verdict)


def first_match(rows: Iterable[FailureText], text: str, place: Place) -> Failure | None:
    """Return the failure that the first matching row of a place finds; None if no row matches."""
    for row in rows:
        if place in row.places:
            found = row.find(text)
            if found is not None:
                return found
    return None
