"""What the exit code of a container means if its log does not say more."""

from __future__ import annotations

from typing import NamedTuple

from aksgpu.diagnose.cures import EDIT_JOB_SHELL, RUN_AGAIN, Cure, edit_job
from aksgpu.diagnose.program_texts import SHARED_MEMORY_CURE

__all__ = ["EXIT_CODES", "SIGNALS", "ExitCode", "meaning_of"]

SIGNALS = 128
"""Exit codes from here on name the signal that ended the program."""


class ExitCode(NamedTuple):
    """The meaning of an exit code.

    Attributes:
        name: a few words.
        meaning: what it means, as a clause. A guess says that it is one.
        cure: what helps.
    """

    name: str
    meaning: str
    cure: Cure


_COMMAND = Cure(
    f"Correct command and args: the program must be in the image and executable; {RUN_AGAIN}",
    edit_job('pod["containers"][0]["command"] = ["python", "train.py"]'),
    EDIT_JOB_SHELL,
)
_FAULT_HANDLER = Cure(
    "Set PYTHONFAULTHANDLER=1 in env, so that Python prints where it crashed. Often two packages of the image do not "
    "fit "
    f"together: use fixed versions or a framework image; {RUN_AGAIN}",
    edit_job('pod["containers"][0].setdefault("env", []).append({"name": "PYTHONFAULTHANDLER", "value": "1"})'),
    EDIT_JOB_SHELL,
)

EXIT_CODES = {
    126: ExitCode("a program that cannot be executed", "the program exists and cannot be executed", _COMMAND),
    127: ExitCode("a program that is not found", "the shell did not find the program", _COMMAND),
    132: ExitCode(
        "an illegal instruction",
        "the program used an instruction that the node's processor does not have (SIGILL)",
        Cure(
            "Use an image that is built for the node's processor: kubectl get nodes -L kubernetes.io/arch.",
            "from aksgpu import capacity\ncapacity.nodes(aks)",
            "kubectl get nodes -L kubernetes.io/arch",
        ),
    ),
    134: ExitCode(
        "an abort", "the program aborted itself (SIGABRT), as C++ libraries do after an error", _FAULT_HANDLER
    ),
    135: ExitCode(
        "a bus error",
        "the program had a bus error (SIGBUS); a guess: in a container, /dev/shm is often full",
        SHARED_MEMORY_CURE,
    ),
    137: ExitCode(
        "a killed program",
        "the program was killed (SIGKILL): by its node for lack of memory, or because it did not end when it was asked "
        "to; the cluster does not say which",
        Cure(
            "Ask for more memory (resources.requests.memory and limits.memory). diagnose.node(aks, 'NODE') shows "
            "whether the node reports a lack of memory.",
            'from aksgpu import diagnose\ndiagnose.node(aks, "NODE")',
            "kubectl describe node NODE",
        ),
    ),
    139: ExitCode("a segmentation fault", "a library of the program crashed (SIGSEGV)", _FAULT_HANDLER),
    143: ExitCode(
        "a program that was asked to end",
        "the program was asked to end (SIGTERM); the pod itself was not deleted, so a launcher, a time limit or a "
        "script in the container asked it",
        Cure(
            f"Look in its log for what ended it (a launcher whose other process failed, timeout), correct the program, "
            f"{RUN_AGAIN}",
            'from aksgpu import logs\nprint(logs.read(aks, "POD", namespace="NAMESPACE", tail_lines=200))',
            "kubectl logs POD --namespace NAMESPACE --all-containers --tail=200",
        ),
    ),
}
"""Exit codes with a meaning of their own."""


def meaning_of(exit_code: object, signal: object = None) -> ExitCode | None:
    """Return the meaning of an exit code; None if it has none of its own.

    Args:
        exit_code: the container's exit code.
        signal: the signal that ended it, if the runtime reports it.
    """
    if isinstance(signal, int) and signal:
        return EXIT_CODES.get(SIGNALS + signal)
    return EXIT_CODES.get(exit_code) if isinstance(exit_code, int) else None
