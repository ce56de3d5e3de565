"""Completion indexes of Indexed Jobs: their text form, the success policy, and the failures of each index.

A Job with ``backoffLimitPerIndex`` counts failures for each index. A pod has the number of failures before it in two
annotations. The last failed pod of an index keeps its finalizer until a replacement has the new count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from aksgpu.local.control.pod_failure_policy import match_failure_policy
from aksgpu.local.objects import Object

INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
FAILURE_COUNT = "batch.kubernetes.io/job-index-failure-count"
"""The annotation with the number of counted failures of the index before this pod."""
IGNORED_FAILURE_COUNT = "batch.kubernetes.io/job-index-ignored-failure-count"
"""The annotation with the number of failures of the index before this pod that the failure policy ignored."""
_INTERVAL = re.compile(r"(?P<first>\d{1,10})(-(?P<last>\d{1,10}))?", re.ASCII)


def is_indexed(job: Object) -> bool:
    """Return whether the Job is an Indexed Job, in which each completion has an index."""
    return bool(job["spec"].get("completionMode") == "Indexed")


def has_limit_per_index(job: Object) -> bool:
    """Return whether the Job limits the failures of each index."""
    return "backoffLimitPerIndex" in job["spec"]


def completion_index(pod: Object) -> int:
    """Return the completion index of a pod of an Indexed Job, or -1 if it has none."""
    return _annotation(pod, INDEX_LABEL, -1)


def _annotation(pod: Object, name: str, default: int) -> int:
    """Return an annotation that is a number; the default if it is missing or something else."""
    text = str((pod["metadata"].get("annotations") or {}).get(name, ""))
    return int(text) if text.isascii() and text.isdigit() else default


def parse_indexes(text: str | None, completions: int) -> set[int]:
    """Parse ``1,3-5``. Indexes that are not less than ``completions`` and invalid parts are skipped."""
    numbers: set[int] = set()
    for part in (text or "").split(","):
        match = _INTERVAL.fullmatch(part)
        if match:
            last = int(match["last"] or match["first"])
            numbers.update(range(int(match["first"]), min(last, completions - 1) + 1))
    return numbers


def format_indexes(numbers: Iterable[int]) -> str:
    """Format indexes as ``1,3-5``. Three or more in a row are written as a range."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts: list[str] = []
    for run in runs:
        if len(run) > 2:
            parts.append(f"{run[0]}-{run[-1]}")
        else:
            parts += map(str, run)
    return ",".join(parts)


def index_failures(pod: Object) -> int:
    """Return the number of failures of the pod's index before this pod, including ignored failures."""
    return _annotation(pod, FAILURE_COUNT, 0) + _annotation(pod, IGNORED_FAILURE_COUNT, 0)


def is_index_failed(job: Object, pod: Object) -> bool:
    """Return whether the index of a failed pod has failed permanently."""
    action = match_failure_policy(job, pod).action
    if action == "FailIndex":
        return True
    return action != "Ignore" and _annotation(pod, FAILURE_COUNT, 0) >= job["spec"]["backoffLimitPerIndex"]


def failure_annotations(job: Object, replaced: Object | None) -> dict[str, str]:
    """Return the annotations of a new pod: the failures of its index so far.

    Args:
        job: the Job.
        replaced: the failed pod that the new one replaces, or None if it is the first of its index.
    """
    failures = 0
    ignored = 0
    if replaced is not None:
        failures = _annotation(replaced, FAILURE_COUNT, 0)
        ignored = _annotation(replaced, IGNORED_FAILURE_COUNT, 0)
        if match_failure_policy(job, replaced).action == "Ignore":
            ignored += 1
        else:
            failures += 1
    annotations = {FAILURE_COUNT: str(failures)}
    if ignored:
        annotations[IGNORED_FAILURE_COUNT] = str(ignored)
    return annotations


def matched_success_rule(job: Object, completed: set[int]) -> int | None:
    """Return the number of the first rule of the Job's success policy that is met, or None."""
    if not completed:
        return None
    for number, rule in enumerate((job["spec"].get("successPolicy") or {}).get("rules") or ()):
        count = rule.get("succeededCount")
        indexes = rule.get("succeededIndexes")
        if indexes is None:
            if count is not None and len(completed) >= count:
                return number
            continue
        required = parse_indexes(indexes, job["spec"]["completions"])
        succeeded = required & completed
        if required and (succeeded == required or (count is not None and len(succeeded) >= count)):
            return number
    return None
