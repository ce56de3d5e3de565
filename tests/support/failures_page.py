"""Write docs/failures.md from the tables of failures.

python tests/support/failures_page.py           # write the page
python tests/support/failures_page.py --score   # print how many cases are diagnosed rightly
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from aksgpu.diagnose.access_texts import ACCESS_TEXTS
from aksgpu.diagnose.cures import Cure
from aksgpu.diagnose.exit_codes import EXIT_CODES
from aksgpu.diagnose.failure_text import FailureText
from aksgpu.diagnose.gpu_texts import GPU_TEXTS, MEMORY_TEXTS
from aksgpu.diagnose.kueue_workloads import KUEUE_TEXTS
from aksgpu.diagnose.mpi_texts import MPI_TEXTS
from aksgpu.diagnose.node_texts import NODE_TEXTS
from aksgpu.diagnose.program_texts import DISTRIBUTED_TEXTS, IMAGE_CONTENT_TEXTS, STORAGE_TEXTS, WRAPPER_TEXTS
from aksgpu.diagnose.scheduling_rules import RULES
from aksgpu.diagnose.scheduling_texts import AUTOSCALER_TEXTS, RESOURCE_TEXTS, SCHEDULER_TEXTS
from aksgpu.diagnose.serving_texts import SERVING_TEXTS
from aksgpu.diagnose.start_texts import (
    ADMISSION_TEXTS,
    IMAGE_TEXTS,
    REFUSED_TEXTS,
    START_TEXTS,
    UNMOUNTED_TEXTS,
    VOLUME_TEXTS,
)
from aksgpu.kube.taint_kinds import TAINTS

PAGE = Path(__file__).parents[2] / "docs" / "failures.md"

BEGINNING = """# Failures, and what helps

`job.why()`, `diagnose.pod(aks, name)`, `diagnose.node(aks, name)` and `diagnose.cluster(aks)` recognise these failures.
A `Diagnosis` has the verdict, the fix as a sentence (`fix`), as code (`python`) and as commands (`shell`), and the
name of the cause (`cause`), which is the first column of the tables below. Where the evidence is not enough, the
verdict says so, and the fix says what to look at.

This page is made from the tables in `aksgpu/diagnose`: `python tests/support/failures_page.py` writes it. Names in
capital letters, such as `POOL`, are placeholders here. A diagnosis has the names of the cluster, the pool, the node and
the Job instead.
"""

SCORE = """## Score

The cases in `tests/data/failures` are texts that programs, Azure and Kubernetes print, most of them from public
reports. `python tests/support/failures_page.py --score` diagnoses them and prints the line at the end of this section.
A case is *half* right if only the cause or only the fix is right. The people who maintain the tables know these cases,
so the line shows that nothing got worse. It does not show how well other texts are diagnosed.

Other texts do worse. In November 2026, an engineer who had read the tables but had not written them collected texts
that people had posted, and wrote down the right cause, class and fix before the first run. *Nothing* means that there
is no verdict, or one that only repeats the text.

| Round | Texts | Right | Half | Wrong | Nothing |
|---|---|---|---|---|---|
| 1, first run | 113 | 69 | 4 | 8 | 32 |
| 1, after the tables were corrected | 113 | 112 | 0 | 0 | 1 |
| 2, other texts, first run after that correction | 17 | 8 | 0 | 3 | 6 |
| 2, after the tables were corrected again | 17 | 16 | 0 | 0 | 1 |
| 3, texts of other tools, first run | 182 | 130 | 12 | 8 | 32 |
| 3, after the tables were corrected | 182 | 181 | 0 | 0 | 1 |
| 4, other texts, first run after that correction | 70 | 31 | 1 | 4 | 34 |
| 4, after the tables were corrected | 70 | 68 | 1 | 0 | 1 |
| 5, refusals of Azure, first run | 50 | 11 | 11 | 1 | 27 |
| 5, after the rules were extended | 50 | 50 | 0 | 0 | 0 |
| 6, other refusals of Azure, first run after that | 6 | 0 | 1 | 0 | 5 |
| 6, after the rules were extended | 6 | 6 | 0 | 0 | 0 |

In rounds 3 to 5, some texts were written from memory in the form that the programs print, and the same engineer
compared each verdict with a note of what it should say.

The first run of a round is the better estimate for a text that nobody has tried. The wrong verdicts took an optional
library for the cause, a busy GPU for a lost one, the memory of the GPU for that of the node, a timeout for a missing
login, or an error in Azure for one in the request. Round 2 had texts of Ray, XGBoost and the container hook, of which
the tables had few. Rounds 3 and 4 had texts of Open MPI, vLLM, TensorRT, Hugging Face, storage accounts, volumes,
probes and scripts. The wrong verdicts of these rounds named an error that the program had survived, a lack of memory
where a probe had failed, and a missing driver where the image had files of the driver. Other verdicts found no cause,
although an event named it. Round 4 looked for what the tables lacked, so its first run is worse than that of an
ordinary failure. Rounds 5 and 6 looked for refusals of node pools and networks that the rules for Azure Resource
Manager lacked. The texts that Azure sends are in `tests/data/azure-refusals.yaml`.

"""

RULES_TEXT = """Texts of the scheduler, of the cluster autoscaler and of node auto-provisioning. The state of the nodes
says more, so the rules that compare a pod with each node are tried first, in this order:

"""

PROGRAM_TABLES: tuple[tuple[str, str, tuple[FailureText, ...]], ...] = (
    ("GPUs, drivers and CUDA", "In logs, in messages of containers and pods, and in events.", GPU_TEXTS),
    ("Memory", "", (*SERVING_TEXTS, *MEMORY_TEXTS)),
    ("Shared memory and disks", "", STORAGE_TEXTS),
    (
        "Several processes",
        "The diagnosis names the first error of the process that failed first. The others only lost their connection.",
        (*MPI_TEXTS, *DISTRIBUTED_TEXTS, *WRAPPER_TEXTS),
    ),
    ("What an image lacks, and what a program cannot reach", "", (*ACCESS_TEXTS, *IMAGE_CONTENT_TEXTS)),
    ("Image pulls", "", IMAGE_TEXTS),
    ("Containers that do not start", "", START_TEXTS),
    ("Volumes", "", (*VOLUME_TEXTS, *UNMOUNTED_TEXTS)),
    ("Pods that a node refuses or ends", "", ADMISSION_TEXTS),
    ("Pods that the API server refuses", "", REFUSED_TEXTS),
    (
        "Conditions of nodes",
        "`diagnose.node(aks, name)` reports those whose status is `True`, and names those that are `Unknown`.",
        NODE_TEXTS,
    ),
)


def page() -> str:
    """Return the page."""
    parts = [BEGINNING, *_score(), *_scheduling()]
    for title, text, rows in PROGRAM_TABLES:
        parts.append(
            _section(title, text, ((row.name, row.example, row.verdict, row.cure, row.source) for row in rows))
        )
    kueue = ((row.name, row.example, row.meaning, row.cure, row.source) for row in KUEUE_TEXTS)
    parts += [
        _section("Queues of Kueue", "The Job is suspended until Kueue admits its Workload.", kueue),
        _exit_codes(),
    ]
    return "\n".join(parts)


def _score() -> Iterator[str]:
    from support.failure_cases import outcomes

    counts = Counter(outcome.mark for outcome in outcomes())
    yield f"{SCORE}{score_line(counts)}\n"


def score_line(counts: Counter[str]) -> str:
    total = sum(counts.values())
    return f"Cases tried: {total}. Right: {counts['right']}. Half: {counts['half']}. Wrong: {counts['wrong']}."


def _scheduling() -> Iterator[str]:
    rows = (*AUTOSCALER_TEXTS, *SCHEDULER_TEXTS, *RESOURCE_TEXTS)
    yield _section(
        "Pods without a node",
        RULES_TEXT + "\n".join(f"{number}. {rule.name}" for number, rule in enumerate(RULES, 1)),
        ((row.name, row.example, row.meaning, row.cure, row.source) for row in rows),
    )
    lines = [
        "## Taints\n",
        "Tolerate only the taints of pools. These taints mean something else, and no workload should tolerate them:\n",
        "| Taint | The node ... |",
        "|---|---|",
    ]
    lines += [f"| `{key}` | {found.text} |" for key, found in TAINTS]
    yield "\n".join(lines) + "\n"


def _section(title: str, text: str, rows: Iterable[tuple[str, str, str, Cure, str]]) -> str:
    lines = [f"## {title}\n"]
    if text:
        lines.append(f"{text}\n")
    lines += ["| Cause | Text | Meaning | What helps | Source |", "|---|---|---|---|---|"]
    for name, example, meaning, cure, source in rows:
        cells = (name, f"`{_shortened(example)}`", _plain(meaning), cure.advice, f"[link]({source})")
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join([*lines, ""])


def _exit_codes() -> str:
    lines = [
        "## Exit codes\n",
        "What an exit code means if the log does not say more.\n",
        "| Exit code | Meaning | What helps |",
        "|---|---|---|",
    ]
    for code, found in EXIT_CODES.items():
        lines.append(f"| {code} | {_cell(found.meaning)} | {_cell(found.cure.advice)} |")
    return "\n".join(lines) + "\n"


def _plain(meaning: str) -> str:
    """Return a verdict without its optional parts, and with ``...`` for what a text fills in."""
    return re.sub(r"\{\w+\}", "...", re.sub(r"\[[^\[\]]*\]", "", meaning))


def _shortened(text: str) -> str:
    one_line = " ".join(text.replace("`", "'").split())
    return one_line if len(one_line) <= 160 else f"{one_line[:157]}..."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> None:
    if "--score" in sys.argv:
        from support.failure_cases import outcomes

        sys.stdout.write(score_line(Counter(outcome.mark for outcome in outcomes())) + "\n")
        for outcome in outcomes():
            if outcome.mark != "right":
                problems = "; ".join([*outcome.cause_wrong, *outcome.fix_wrong])
                sys.stdout.write(f"{outcome.mark}: {outcome.case.name}: {problems}\n")
        return
    PAGE.write_text(page())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
