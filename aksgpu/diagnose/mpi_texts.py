"""Texts of Open MPI, of Horovod and of ssh, which start a training in several pods."""

from __future__ import annotations

from aksgpu.diagnose.cures import EDIT_JOB_SHELL, RUN_AGAIN, Cure, edit_job
from aksgpu.diagnose.failure_text import FailureText, Place

__all__ = ["MPI_TEXTS"]

_LOG = frozenset({Place.LOG})

MPI_TEXTS = (
    FailureText(
        name="ssh refuses the launcher of MPI",
        pattern=r"Host key verification failed|Permission denied \(publickey|no matching host key type found",
        verdict="a worker pod refuses the ssh connection of the launcher: its host key or the user's key is wrong",
        cure=Cure(
            "Give all pods of the training the same keys, as the MPI operator does in an MPIJob. In an image of your "
            "own, set StrictHostKeyChecking no in /etc/ssh/ssh_config; the file with the private key must have the "
            f"mode 0600 and belong to the container's user; {RUN_AGAIN}",
            edit_job(
                'options = {"name": "OMPI_MCA_plm_rsh_args", "value": "-o StrictHostKeyChecking=no"}',
                'pod["containers"][0].setdefault("env", []).append(options)',
            ),
            EDIT_JOB_SHELL,
        ),
        places=_LOG,
        example="Host key verification failed.",
        near_miss="Warning: Permanently added 'train-worker-0' (ECDSA) to the list of known hosts.",
        source="https://horovod.readthedocs.io/en/stable/docker_include.html",
    ),
    FailureText(
        name="the launcher of MPI does not reach its workers",
        pattern=r"ssh: Could not resolve hostname|ssh: connect to host \S{1,253} port \d{1,5}"
        r"|was unable to reliably start one or more daemons",
        verdict="the launcher of MPI does not reach a worker pod: the pod is not running yet, or its name is unknown",
        cure=Cure(
            "Start the launcher after the workers: spec.launcherCreationPolicy: WaitForWorkersReady in an MPIJob, or "
            "restartPolicy: OnFailure for the launcher, so that it is started again until they run. The workers need a "
            "headless Service with their subdomain, and a running sshd. kubectl get pods shows which of them do not "
            "run.",
            'aks.kube.list("Pod", "NAMESPACE")',
            "kubectl get pods --namespace NAMESPACE -o wide\nkubectl get endpoints --namespace NAMESPACE",
        ),
        places=_LOG,
        example="ssh: Could not resolve hostname train-worker-5.train: Name or service not known",
        near_miss="ssh: all 4 workers are connected",
        source="https://github.com/volcano-sh/volcano/issues/2226",
    ),
    FailureText(
        name="MPI has too few slots",
        pattern=r"There are not enough slots available in the system",
        verdict="the number of processes is larger than the number of slots of the MPI workers",
        cure=Cure(
            "Start as many processes (mpirun -np, horovodrun -np) as there are workers times slots: slotsPerWorker of "
            f"an MPIJob, or slots=N in the host file, which should be the number of GPUs of a worker; {RUN_AGAIN}",
            edit_job('pod["containers"][0]["args"] = ["-np", "2", "python", "train.py"]'),
            EDIT_JOB_SHELL,
        ),
        places=_LOG,
        example="There are not enough slots available in the system to satisfy the 8",
        near_miss="8 slots are available in the system",
        source="https://github.com/h5py/h5py/issues/2627",
    ),
    FailureText(
        name="mpirun does not run as root",
        pattern=r"(?:mpirun|mpiexec|prterun|orterun) has detected an attempt to run as root",
        verdict="the image's user is root, and mpirun refuses to run as root",
        cure=Cure(
            "Add --allow-run-as-root to mpirun, or set OMPI_ALLOW_RUN_AS_ROOT=1 and OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
            f"in env; {RUN_AGAIN}",
            edit_job(
                'env = pod["containers"][0].setdefault("env", [])',
                'env.append({"name": "OMPI_ALLOW_RUN_AS_ROOT", "value": "1"})',
                'env.append({"name": "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "value": "1"})',
            ),
            EDIT_JOB_SHELL,
        ),
        places=_LOG,
        example="mpirun has detected an attempt to run as root.",
        near_miss="mpirun runs 4 processes",
        source="https://horovod.readthedocs.io/en/stable/mpi.html",
    ),
)
"""Training with MPI. These rows come before those about networks: ssh prints the same words."""
