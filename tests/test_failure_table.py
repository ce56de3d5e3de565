"""The table of failure texts: each row by its example and by a near miss."""

from __future__ import annotations

import ast
import re

import pytest

from aksgpu import errors
from aksgpu.diagnose import gpu_failures
from aksgpu.diagnose.cures import PLACEHOLDERS, Cure, fill
from aksgpu.diagnose.exit_codes import EXIT_CODES, meaning_of
from aksgpu.diagnose.failure_text import Failure, FailureText, Place
from aksgpu.diagnose.gpu_failures import LOG_RULES, from_condition, from_container, from_event, from_log, from_pod
from aksgpu.diagnose.kueue_workloads import KUEUE_TEXTS
from aksgpu.diagnose.node_texts import NODE_TEXTS
from aksgpu.diagnose.scheduling_texts import AUTOSCALER_TEXTS, RESOURCE_TEXTS, SCHEDULER_TEXTS, SchedulingText
from aksgpu.diagnose.start_texts import IMAGE_TEXTS, REFUSED_TEXTS, UNMOUNTED_TEXTS, VOLUME_TEXTS
from aksgpu.kube.node_health import concerns_gpus
from aksgpu.kube.taint_kinds import TAINTS, TaintKind, is_temporary, meaning

NAMES = [row.name for row in LOG_RULES]
WAITS = (" if ", "until", "minute", "does not help", "is free", "its progress", "moment")
"""Parts of advice that says how long to wait, or that waiting does not help."""
SCHEDULING = (*AUTOSCALER_TEXTS, *SCHEDULER_TEXTS, *RESOURCE_TEXTS)
CURES = [
    *((row.name, row.cure) for row in LOG_RULES),
    *((row.name, row.cure) for row in SCHEDULING),
    *((row.name, row.cure) for row in KUEUE_TEXTS),
    *((code.name, code.cure) for code in EXIT_CODES.values()),
]


def found_in(row: FailureText, place: Place, text: str) -> Failure | None:
    """What the table says about a text in a place."""
    if place is Place.LOG:
        return from_log(text)
    if place is Place.CONTAINER:
        return from_container(text, image=row in IMAGE_TEXTS)
    if place is Place.POD:
        return from_pod("", text)
    if place is Place.CONDITION:
        kind, _, rest = text.partition(": ")
        return from_condition(kind, *rest.partition(": ")[::2]) if row in NODE_TEXTS else row.find(text)
    reason = "FailedCreatePodSandBox"
    for rows, name in (
        (REFUSED_TEXTS, "FailedCreate"),
        ((*VOLUME_TEXTS, *UNMOUNTED_TEXTS), "FailedMount"),
        (IMAGE_TEXTS, "Failed"),
    ):
        reason = name if row in rows else reason
    return from_event(reason, text)


@pytest.mark.parametrize("row", LOG_RULES, ids=NAMES)
def test_the_example_of_a_row_is_recognised_wherever_it_may_appear(row: FailureText) -> None:
    for place in sorted(row.places):
        found = found_in(row, place, row.example)
        assert found is not None, place
        assert found.name == row.name, place
        assert type(found.error()) is row.kind
        assert not re.search(r"[{}\[\]]|\?", found.verdict), found.verdict


@pytest.mark.parametrize("row", LOG_RULES, ids=NAMES)
def test_a_near_miss_is_not_taken_for_the_failure(row: FailureText) -> None:
    assert row.find(row.near_miss) is None
    for place in row.places:
        found = found_in(row, place, row.near_miss)
        assert found is None or found.name != row.name


@pytest.mark.parametrize("row", NODE_TEXTS, ids=[row.name for row in NODE_TEXTS])
def test_the_table_and_the_health_of_nodes_agree_which_conditions_concern_gpus(row: FailureText) -> None:
    condition = row.example.partition(": ")[0]
    assert concerns_gpus(condition) == issubclass(row.kind, errors.GpuStackError)


@pytest.mark.parametrize("row", SCHEDULING, ids=[row.name for row in SCHEDULING])
def test_scheduling_texts(row: SchedulingText) -> None:
    assert row.matches(row.example)
    assert not row.matches(row.near_miss)


@pytest.mark.parametrize("row", KUEUE_TEXTS, ids=[row.name for row in KUEUE_TEXTS])
def test_texts_of_kueue(row: object) -> None:
    text = KUEUE_TEXTS[KUEUE_TEXTS.index(row)]  # type: ignore[arg-type]  # it is one of them
    first = next(each for each in KUEUE_TEXTS if re.search(each.pattern, text.example))
    assert first.name == text.name
    assert not re.search(text.pattern, text.near_miss)


def test_names_are_unique_and_each_row_has_a_source() -> None:
    for names in (NAMES, [row.name for row in SCHEDULING], [row.name for row in KUEUE_TEXTS]):
        assert len(set(names)) == len(names)
    for row in (*LOG_RULES, *SCHEDULING, *KUEUE_TEXTS):
        assert re.fullmatch(r"https://[\w.-]+/\S*", row.source), row.name


@pytest.mark.parametrize(("name", "cure"), CURES, ids=[name for name, _ in CURES])
def test_a_cure_is_a_sentence_code_and_a_command(name: str, cure: Cure) -> None:
    assert cure.advice.endswith((".", ")")), cure.advice
    assert "wait" not in cure.advice.lower() or any(word in cure.advice for word in WAITS)
    assert cure.python or cure.shell
    ast.parse(cure.python)
    for text in (cure.advice_for(False), cure.python_for(False), cure.shell_for(False)):
        assert not re.search(r"\baz (?:aks|acr|vm|network|storage)\b|\bsizes\.\w+\(|\bcluster\.\w+\(", text), name


def test_placeholders_are_replaced_by_names_that_are_known() -> None:
    text = "kubectl cordon NODE in POOL"
    assert fill(text, {"NODE": "n1", "POOL": ""}) == "kubectl cordon n1 in POOL"
    assert fill("NODEPOOL and ANODE stay", dict.fromkeys(PLACEHOLDERS, "x")) == "NODEPOOL and ANODE stay"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("java.lang.OutOfMemoryError: Java heap space", "the JVM's heap is too small"),
        (
            "RuntimeError: NCCL error: unhandled cuda error, Cuda failure 2 'out of memory'",
            "the GPU's memory is too small",
        ),
        ("NVRM: Xid (PCI:0000:00:07): 79, GPU has fallen off the bus", "a GPU is lost"),
        ("NVRM: Xid (PCI:0000:00:07): 13, Graphics SM Warp Exception", "the driver reports an error of the program"),
        ("Segmentation fault (core dumped)", "a segmentation fault"),
        ("sh: 1: git: not found", "git is missing"),
        ("OSError: [Errno 28] No space left on device: '/dev/shm/x'", "/dev/shm is too small"),
        ("OSError: [Errno 28] No space left on device: '/data/x'", "the disk is full"),
    ],
)
def test_texts_that_several_rows_could_claim(text: str, name: str) -> None:
    found = from_log(text)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    "text",
    [
        "Accuracy at step 10: 0.7457\nTesla T4",
        "loss: 0.1 - out_of_memory_count: 0",
        "Using device: cuda:0",
        "torch.cuda.is_available() = True",
        "INFO GPU available: True (cuda), used: True",
        "nvidia-smi shows 37 C",
        "Downloaded 10 files without errors",
        "",
    ],
)
def test_ordinary_output_is_not_a_failure(text: str) -> None:
    assert from_log(text) is None


def test_numbers_become_attributes() -> None:
    found = from_log("NVRM: Xid (PCI:0000:00:05): 94, pid='<unknown>', Contained: SM (0x1).")
    assert found is not None
    error = found.error()
    assert isinstance(error, errors.GpuLost)
    assert error.xid == 94
    assert "XID 94" in error.message


def test_exit_codes_that_mean_something() -> None:
    assert meaning_of(1) is None
    assert meaning_of(0, 9) is EXIT_CODES[137]
    killed = meaning_of(137)
    assert killed is not None
    assert "does not say" in killed.meaning


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("sku", TaintKind.POOL),
        ("nvidia.com/gpu", TaintKind.POOL),
        ("kubernetes.azure.com/scalesetpriority", TaintKind.POOL),
        ("CriticalAddonsOnly", TaintKind.SYSTEM),
        ("CriticalAddonsOnlyNot", TaintKind.POOL),
        ("node.kubernetes.io/not-ready", TaintKind.NOT_READY),
        ("node.kubernetes.io/disk-pressure", TaintKind.PRESSURE),
        ("node.cloudprovider.kubernetes.io/uninitialized", TaintKind.STARTING),
        ("karpenter.sh/disrupted", TaintKind.LEAVING),
        ("remediator.aks.microsoft.com/unschedulable", TaintKind.REPAIRED),
    ],
)
def test_what_a_taint_means(key: str, kind: TaintKind) -> None:
    assert meaning(key).kind == kind
    assert is_temporary(key) == (kind not in (TaintKind.POOL, TaintKind.SYSTEM))
    assert len({beginning for beginning, _ in TAINTS}) == len(TAINTS)


def test_the_module_lists_its_names() -> None:
    assert set(gpu_failures.__all__) <= set(dir(gpu_failures))
