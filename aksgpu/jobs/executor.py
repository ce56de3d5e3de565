"""Run functions of this notebook or program on the cluster's GPUs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from aksgpu.common.arguments import flag, shown
from aksgpu.errors import InvalidInput, KubernetesError
from aksgpu.jobs import executor_arguments, job_arguments
from aksgpu.jobs.call_parameters import parameters, script_parameters
from aksgpu.jobs.executor_options import ExecutorOptions
from aksgpu.jobs.explanation import Explanation, explain_payload
from aksgpu.jobs.job import Job
from aksgpu.jobs.job_launch import launch
from aksgpu.jobs.many_jobs import MapResults
from aksgpu.jobs.run_notices import note_earlier_runs, remember
from aksgpu.jobs.session import Session, open_session
from aksgpu.kube import path_names
from aksgpu.kube.client import HasKube
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.payload.job_annotations import PARAMETERS
from aksgpu.payload.modules import find_root
from aksgpu.payload.packing import Payload, pack_call
from aksgpu.payload.script_packing import pack_script, read_script
from aksgpu.waiting import Timeout, check_timeout

__all__ = ["Executor"]

_ARGUMENTS_HINT = 'For example gpu.script("train.py", "--epochs", 3).'


class Executor:
    """Runs functions as Jobs of the cluster. Each call is a Job of its own, with the options of the executor.

    The function is sent by value, so the image needs neither it nor this library. Its modules that are not installed
    packages are sent with it. Everything else that it imports must be in the image, or in ``packages``.

    Args:
        aks: the cluster.
        gpus: number of GPUs; 0 for none.
        nodes: number of nodes; only 1 is supported.
        processes: only None is supported: one process runs the function.
        image: container image with Python 3.8 or newer. None uses the environment variable ``AKSGPU_IMAGE``, or else
            ``python:X.Y-slim`` with the version of this Python.
        python: the image's Python: a version such as ``"3.12"`` for the default image, or the path of an interpreter
            in the image. None uses the version of this Python, and the first ``python3`` on the image's PATH.
        packages: requirements to install before the function runs: a list, the path of a requirements file or of a
            ``pyproject.toml``, or ``"auto"`` for the installed distributions of the modules that the function uses.
        env: environment variables by name: strings and numbers.
        secrets: environment variables whose values are kept in a Secret, by name; or the names of existing Secrets,
            whose keys become environment variables.
        image_pull_secrets: names of Secrets with credentials of the image's registry.
        cpu: cores to reserve, such as 2 or ``"500m"``. None reserves the node's share for the GPUs.
        memory: memory to reserve, which is also the limit, such as ``"8Gi"``. None reserves the node's share.
        shm: size of ``/dev/shm``, such as ``"2Gi"``. None allows as much as the pod's memory.
        volumes: names of claims by the path at which the program finds them, such as ``{"/data": "data"}``. See
            :func:`aksgpu.storage.create`.
        out: name of a claim for output. ``$AKSGPU_OUT`` is a directory of the Job on it, with the Job's name. The next
            attempt finds there what an earlier one wrote, and so does a later Job of the same name. Results of any
            size come back through it, and none is lost with its node.
        timeout: how long the program may run: seconds, or text such as ``"2h"``; None means no limit. The time of
            waiting for a node does not count.
        retries: how often to run the function again after a failure.
        mode: how the function is sent. ``"pickle"`` needs the same minor version of Python in the image;
            ``"source"`` sends the source of the function and its helpers. ``"auto"`` sends both, and the pod uses the
            source if its Python differs.
        name: name of the Job. The same call with the same name returns the Job that exists. None makes a new Job for
            each call.
        replace: what happens to an existing Job of that name, as for :func:`aksgpu.jobs.apply`. True deletes it first,
            even if it runs; its directory on the claim ``out`` is kept. False returns an old run of the same call
            without a warning, and None with one.
        namespace: the namespace to run in; None uses the context's namespace.
        service_account: the pod's service account.
        node_selector: labels that the node must have.
        vm_size: the node's VM size, such as ``"Standard_NC24ads_A100_v4"``.
        gpu_model: the model of the node's GPUs, such as ``"A100"``.
        spot: True runs on spot nodes only, False on none of them, None on either.
        queue: the name of Kueue's local queue. Kueue then starts the Job.
        priority: the name of a PriorityClass.
        resources: further resources by name, such as ``{"rdma/ib": 1}``.
        root: the project's directory; its modules are sent with the function. None uses the nearest parent directory
            with ``pyproject.toml`` or ``.git``, or else the working directory.
        include: files and directories below the working directory that the program finds in its own, at most 8 MiB
            compressed with the function.
        workdir: working directory in the pod.

    Attributes:
        cluster: the cluster.
        options: the checked options.

    Raises:
        InvalidInput: an argument is not valid; the message names it.

    Example:
        >>> gpu = jobs.Executor(aks, gpus=1, timeout="2h")  # doctest: +SKIP
        >>> gpu.submit(train, 1e-3, epochs=5).result()  # doctest: +SKIP
    """

    def __init__(
        self,
        aks: HasKube,
        *,
        gpus: int = 1,
        nodes: int = 1,
        processes: str | None = None,
        image: str | None = None,
        python: str | None = None,
        packages: Sequence[str] | str | os.PathLike[str] | None = None,
        env: Mapping[str, object] | None = None,
        secrets: Mapping[str, object] | Sequence[str] | None = None,
        image_pull_secrets: Sequence[str] | str | None = None,
        cpu: float | str | None = None,
        memory: str | None = None,
        shm: str | None = None,
        volumes: Mapping[str, str] | None = None,
        out: str | None = None,
        timeout: Timeout = None,
        retries: int = 0,
        mode: str = "auto",
        name: str | None = None,
        replace: bool | None = None,
        namespace: str | None = None,
        service_account: str | None = None,
        node_selector: Mapping[str, str] | None = None,
        vm_size: str | None = None,
        gpu_model: str | None = None,
        spot: bool | None = None,
        queue: str | None = None,
        priority: str | None = None,
        resources: Mapping[str, object] | None = None,
        root: str | os.PathLike[str] | None = None,
        include: Sequence[str | os.PathLike[str]] | None = None,
        workdir: str | None = None,
    ) -> None:
        check_cluster(aks)
        executor_arguments.refuse_several_nodes(nodes, processes)
        executor_arguments.check_replace(replace, name)
        flag("spot", spot, optional=True)
        version, interpreter = executor_arguments.python(python)
        secret_values, secret_names = executor_arguments.secrets(secrets)
        self.cluster = aks
        self.options = ExecutorOptions(
            gpus=job_arguments.count("gpus", gpus),
            image=executor_arguments.image(image, version),
            python=version,
            interpreter=interpreter,
            packages=executor_arguments.packages(packages),
            env=executor_arguments.variables("env", env),
            secrets=secret_values,
            secret_names=secret_names,
            image_pull_secrets=executor_arguments.secret_names("image_pull_secrets", image_pull_secrets),
            cpu=job_arguments.cpu(cpu) or "",
            memory=job_arguments.memory(memory) or "",
            shm=job_arguments.memory(shm, "shm") or "",
            timeout=executor_arguments.run_time(timeout),
            retries=job_arguments.count("retries", retries),
            mode=executor_arguments.mode(mode, version),
            name="" if name is None else executor_arguments.check_name(name),
            replace=replace,
            namespace="" if namespace is None else path_names.check_namespace(namespace),
            service_account=executor_arguments.object_name("service_account", "ServiceAccount", service_account),
            node_selector=job_arguments.pairs("node_selector", node_selector),
            vm_size=executor_arguments.vm_size(vm_size),
            gpu_model=executor_arguments.gpu_model(gpu_model),
            spot=spot,
            queue=executor_arguments.object_name("queue", "LocalQueue", queue),
            priority=executor_arguments.object_name("priority", "PriorityClass", priority),
            resources=executor_arguments.resources(resources),
            root=executor_arguments.directory("root", root),
            include=tuple(executor_arguments.include(include)),
            workdir=executor_arguments.absolute_path("workdir", workdir),
            volumes=executor_arguments.volumes(volumes),
            out=executor_arguments.object_name("out", "PersistentVolumeClaim", out),
        )

    def __repr__(self) -> str:
        return f"Executor({self.cluster.name!r}, gpus={self.options.gpus}, image={self.options.image!r})"

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Job:
        """Run a function as a Job, and return the Job without waiting for it.

        Args:
            fn: the function.
            args: its positional arguments.
            kwargs: its keyword arguments.

        Returns:
            The Job; ``job.result()`` waits for the function's value.

        Raises:
            InvalidInput: ``fn`` is not callable, is a generator or async function, does not accept these arguments, or
                the call cannot be pickled. Nothing was sent.
            AlreadyExists: the Job of the executor's ``name`` runs something else.
            Forbidden: you may not create Jobs or Secrets, or a quota does not allow it.

        Warns:
            UserWarning: the Job of the executor's ``name`` has ended, and this is the old run; the call is large; the
                cluster's nodes may not be listed; or a value that nobody reads is lost with its node.

        Example:
            >>> job = gpu.submit(train, 1e-3, epochs=5)  # doctest: +SKIP
        """
        note_earlier_runs(fn)
        job = self._submit(self.options, fn, args, kwargs)
        remember(fn, job)
        return job

    def script(
        self, script: str | os.PathLike[str], *args: object, include: Sequence[str | os.PathLike[str]] = ()
    ) -> Job:
        """Run a Python file as a Job, as ``python script.py ARGS`` does, and return the Job without waiting for it.

        The modules of the project that it imports are sent with it, and so are the files of ``include``. The project's
        layout is kept: the script runs in the directory that corresponds to the working directory of this process. The
        executor's ``root`` is the project's directory.

        These are left out of an included directory: version control, virtual environments, caches, and files that
        usually hold credentials, such as ``.env``. A file that ``include`` names directly is always sent.

        Args:
            script: path of the file.
            args: its arguments: strings, numbers and paths.
            include: further files, directories and patterns such as ``"configs/*.yaml"``, relative to the working
                directory or else to the project's directory. They are added to the executor's ``include``.

        Returns:
            The Job. ``job.result()`` waits for the script's end, and returns None.

        Raises:
            InvalidInput: the script or a file does not exist, is outside the project, or is too large. Nothing was
                sent.
            AlreadyExists: the Job of the executor's ``name`` runs something else.
            Forbidden: you may not create Jobs or Secrets, or a quota does not allow it.

        Warns:
            UserWarning: the Job of the executor's ``name`` has ended, and this is the old run; a file that usually
                holds credentials is not sent; or the cluster's nodes may not be listed.

        Example:
            >>> job = gpu.script("train.py", "--epochs", 3, include=["configs/"])  # doctest: +SKIP
            >>> job.result()  # doctest: +SKIP
        """
        words = job_arguments.texts("args", args, _ARGUMENTS_HINT) or []
        further = executor_arguments.include(include)
        found = read_script(script, root=self.options.root)
        payload, left_out = pack_script(found, words, [*self.options.include, *further], packages=self.options.packages)
        if left_out:
            text = f"these files usually hold credentials and are not sent: {', '.join(left_out)}. Use secrets=."
            warnings.warn(text, stacklevel=2)
        annotations = {PARAMETERS: script_parameters(words)}
        return launch(self.cluster, payload, self.options, what=found.path.stem, annotations=annotations)

    def session(self, *, idle: Timeout = "10m") -> Session:
        """Start a pod that runs functions one after another, and keeps loaded what they import.

        The method returns at once; the first call waits for the pod. The session ends when it is closed, when this
        process ends, or when no call has come for some time, also if this process is gone.

        Args:
            idle: how long it waits for a call: seconds, or text such as ``"10m"``.

        Returns:
            The session. Call it with a function and its arguments. As a context manager, it is closed at the end.

        Raises:
            InvalidInput: ``idle`` is not valid.
            Forbidden: you may not create Jobs or Secrets, or a quota does not allow it.

        Example:
            >>> with gpu.session(idle="10m") as session:  # doctest: +SKIP
            ...     session(train, 1e-3)
        """
        return open_session(self.cluster, self.options, idle)

    def explain(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Explanation:
        """Return what would be sent for a call, without sending anything.

        Args:
            fn: the function.
            args: its positional arguments.
            kwargs: its keyword arguments.

        Returns:
            What is sent by value, what the pod imports, the sizes, the packages and the image.

        Raises:
            InvalidInput: as for :meth:`submit`.

        Example:
            >>> gpu.explain(train, 1e-3)  # doctest: +SKIP
        """
        return explain_payload(self._pack(self.options, fn, args, kwargs), self.options)

    def map(self, fn: Callable[..., Any], /, *iterables: Iterable[Any], timeout: Timeout = None) -> MapResults:
        """Run a function once for each item, each as a Job of its own, as ``concurrent.futures`` does.

        All Jobs are submitted at once. If that is interrupted or fails, those that this call created are deleted.

        Args:
            fn: the function.
            iterables: its arguments; the shortest iterable decides the number of calls.
            timeout: how long the iteration may wait for all results: seconds, or text such as ``"2h"``; None means no
                limit.

        Returns:
            An iterator of the values, in the order of the items. Its attribute ``jobs`` lists the Jobs.

        Raises:
            InvalidInput: as for :meth:`submit`, or an argument is not iterable.

        Example:
            >>> losses = list(gpu.map(train, [1e-3, 1e-2]))  # doctest: +SKIP
        """
        check_timeout(timeout)
        iterators = [_iterator(each, number) for number, each in enumerate(iterables, 1)]
        calls = list(zip(*iterators, strict=False))
        started: list[Job] = []
        created: set[str] = set()
        try:
            for number, args in enumerate(calls):
                options = self.options
                if options.name:
                    options = dataclasses.replace(
                        options, name=executor_arguments.check_name(f"{options.name}-{number}")
                    )
                started.append(self._submit(options, fn, args, {}, created))
        except BaseException:
            for job in started:
                if job.name in created:
                    with contextlib.suppress(KubernetesError):
                        self.cluster.kube.delete("Job", job.name, job.namespace)
            raise
        return MapResults(started, timeout)

    def _submit(
        self,
        options: ExecutorOptions,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        created: set[str] | None = None,
    ) -> Job:
        payload = self._pack(options, fn, args, kwargs)
        if payload.largest is not None:
            name, size = payload.largest
            text = (
                f"{_name_of(fn)} and its arguments have {len(payload.body):,} bytes, compressed. The largest part is "
                f"{name} with {size:,} bytes. Pass a path, and read the data in the function."
            )
            # The level is that of the caller of `submit` or `map`.
            warnings.warn(text, stacklevel=3)
        annotations = {PARAMETERS: parameters(fn, args, kwargs)}
        return launch(self.cluster, payload, options, what=_name_of(fn), annotations=annotations, created=created)

    def _pack(
        self, options: ExecutorOptions, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Payload:
        if not callable(fn):
            raise _no_function(fn)
        _refuse_unfinished_values(fn)
        _refuse_other_arguments(fn, args, kwargs)
        root = options.root or find_root()
        return pack_call(
            fn,
            args,
            kwargs,
            root=root,
            mode=options.mode,
            packages=options.packages,
            include=options.include,
        )


def _no_function(value: object) -> InvalidInput:
    hint = "Pass the function and its arguments, as in gpu.submit(train, 1e-3)."
    if str(value).endswith(".py"):
        hint = 'gpu.script("train.py") runs a file.'
    return InvalidInput(f"`fn` must be a function, got {shown(value)}", hint=hint)


def _iterator(iterable: Iterable[Any], number: int) -> Iterator[Any]:
    """Return an iterator of an argument of ``map``.

    Args:
        iterable: the argument. An object with ``__getitem__`` only can be iterated over too.
        number: its position, counted from 1.

    Raises:
        InvalidInput: it is not iterable.
    """
    try:
        return iter(iterable)
    except TypeError:
        raise InvalidInput(
            f"`iterables` must be lists or other iterables, got {shown(iterable)} as number {number}",
            hint="For example gpu.map(train, [1e-3, 1e-2]).",
        ) from None


def _refuse_unfinished_values(function: object) -> None:
    """Raise InvalidInput for a function whose value is a generator or coroutine, which cannot be pickled."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidInput(
            f"`fn` must return its value, and {_name_of(function)} is a generator function",
            hint="Pass a function that returns a list, such as one that returns list(...) of the generator.",
        )
    if inspect.iscoroutinefunction(function):
        raise InvalidInput(
            f"`fn` must return its value, and {_name_of(function)} is an async function",
            hint="Pass a function that returns asyncio.run(...) of the coroutine.",
        )


def _refuse_other_arguments(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raise InvalidInput for a call that the function's parameters do not allow.

    Only functions written in Python are checked, by their own parameters: a decorator may add arguments to a call, and
    other callables may have a signature that is not that of the call.
    """
    if not inspect.isfunction(function) or hasattr(function, "__signature__"):
        return
    signature = inspect.signature(function, follow_wrapped=False)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InvalidInput(
            f"the arguments must be those of {_name_of(function)}{signature}: {error}",
            hint="The executor's options, such as gpus= and timeout=, are arguments of jobs.Executor.",
        ) from None


def _name_of(function: object) -> str:
    """Return the name of a function, or of the class of another callable."""
    while hasattr(function, "func") and not hasattr(function, "__name__"):
        function = function.func  # functools.partial
    return str(getattr(function, "__name__", None) or type(function).__name__)
