"""Choose the user of a kubeconfig's context, and run the login program that the kubeconfig names.

The ``kubernetes`` package logs a failed login and then sends requests without credentials. Here a failed login raises
an exception. ``kubernetes`` is imported inside functions, because importing it takes half a second.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Mapping
from typing import Any

from aksgpu.errors import InvalidInput, Unauthorized
from aksgpu.kube import kubeconfig

__all__ = ["LOGIN_HINT", "entry", "with_credentials"]

LOGIN_HINT = (
    'Get the cluster through Azure instead, with cluster.get(azure, name, resource_group="myGroup"): its token then '
    "comes from azure-identity. Or install the program and log in (AKS: kubelogin convert-kubeconfig -l azurecli)."
)
"""Hint of errors about login programs."""

_PROVIDERS = ("oidc", "gcp")
"""Auth providers that the ``kubernetes`` package supports."""
_LONGEST_OUTPUT = 500
"""Characters of a login program's error text that are shown."""


def entry(config: Mapping[str, Any], section: str, name: str, key: str) -> dict[str, Any]:
    """Return the mapping of a named entry of a kubeconfig.

    Args:
        config: the kubeconfig.
        section: ``clusters``, ``contexts`` or ``users``.
        name: name of the entry.
        key: ``cluster``, ``context`` or ``user``.

    Raises:
        InvalidInput: the entry does not exist.
    """
    for each in config[section]:
        if each["name"] == name:
            return kubeconfig.mapping(each.get(key), f"{key} {name!r}")
    known = ", ".join(each["name"] for each in config[section]) or "none"
    raise InvalidInput(f"the kubeconfig has no {key} {name!r}", hint=f"Its {section}: {known}.")


def with_credentials(
    config: Mapping[str, Any], context: str, *, own_token: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the kubeconfig with the credentials of its login program instead of the program.

    Args:
        config: the kubeconfig.
        context: name of the context whose user logs in.
        own_token: whether the caller has a token. If so, the login that the kubeconfig requires is left out.

    Returns:
        The kubeconfig, and the context's user in it.

    Raises:
        Unauthorized: the login does not work from Python, or returned no credentials.
    """
    details = entry(config, "contexts", context, "context")
    name = str(details.get("user"))
    users = {each["name"]: each.get("user") for each in config["users"]}
    user = kubeconfig.mapping(users.get(name), f"user {name!r}")
    if own_token:
        for key in ("exec", "auth-provider", "token", "tokenFile"):
            user.pop(key, None)
    elif not user.get("token"):
        _check_provider(user)
        program = kubeconfig.mapping(user.pop("exec", None), "exec")
        if program:
            cluster = entry(config, "clusters", str(details.get("cluster")), "cluster")
            user.update(_run_program(program, cluster, context))
    if name in users:
        users[name] = user
    return {**config, "users": [{"name": key, "user": value} for key, value in users.items()]}, user


def _check_provider(user: Mapping[str, Any]) -> None:
    provider = kubeconfig.mapping(user.get("auth-provider"), "auth-provider").get("name")
    if provider and provider not in _PROVIDERS:
        raise Unauthorized(f"the kubeconfig's auth-provider {provider!r} is not supported", hint=LOGIN_HINT)


def _run_program(program: Mapping[str, Any], cluster: Mapping[str, Any], context: str) -> dict[str, str]:
    """Run a login program and return its credentials as fields of a kubeconfig's user."""
    from kubernetes.config import ConfigException
    from kubernetes.config.exec_provider import ExecProvider
    from kubernetes.config.kube_config import ConfigNode

    command = program.get("command")
    if command and shutil.which(command) is None:
        raise Unauthorized(
            f"the kubeconfig logs in with the program {command!r}, which is not installed", hint=LOGIN_HINT
        )
    try:
        status = ExecProvider(ConfigNode("exec", dict(program)), "", ConfigNode("cluster", dict(cluster))).run()
        if "token" in status:
            return {"token": str(status["token"])}
        return {
            "client-certificate-data": _base64(status["clientCertificateData"]),
            "client-key-data": _base64(status["clientKeyData"]),
        }
    except KeyError as missing:
        text = f"its output has no token, and no {missing.args[0]}"
    except (ConfigException, OSError, TypeError, ValueError) as failed:
        text = str(failed).strip()[:_LONGEST_OUTPUT]
    raise Unauthorized(
        f"context {context!r}: the login program {command!r} of its kubeconfig gave no token: {text}", hint=LOGIN_HINT
    )


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
