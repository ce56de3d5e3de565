"""Read, merge and write kubeconfig files.

:mod:`aksgpu.cluster.credentials` fetches the credentials that are written here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aksgpu.common.private_files import write_private
from aksgpu.errors import AzureConflict, InvalidInput

__all__ = [
    "default_file",
    "entra_server",
    "expanded",
    "load",
    "mapping",
    "merge",
    "read",
    "user_of",
    "with_admin_context",
    "write",
    "write_text",
]

_SECTIONS = ("clusters", "users", "contexts")
_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
"""Fields that hold the name of a file, relative to the kubeconfig."""
_WRONG_FILE_HINT = "Correct the file, or name another one."


def default_file() -> Path:
    """Return the file that kubectl writes to: the first of ``KUBECONFIG``, or ``~/.kube/config``.

    Raises:
        InvalidInput: the user has no home directory.
    """
    named = [name for name in os.environ.get("KUBECONFIG", "").split(os.pathsep) if name]
    return expanded(named[0] if named else "~/.kube/config")


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with ``~`` replaced; raises InvalidInput if the user has no home directory."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InvalidInput(
            f"{os.fspath(path)} cannot be resolved: HOME is not set, and the system does not know your user",
            hint="Set HOME or KUBECONFIG, or name a file.",
        ) from error


def load(path: str | os.PathLike[str] | None) -> dict[str, Any]:
    """Return the kubeconfig that kubectl would use, with absolute file names.

    Args:
        path: a file, or several as in ``KUBECONFIG``; None means that variable or ``~/.kube/config``. Several files
            are merged; of entries with the same name, the first one is used.

    Raises:
        InvalidInput: no file exists, or one is not a kubeconfig.
    """
    listed = os.fspath(path) if path is not None else os.environ.get("KUBECONFIG") or "~/.kube/config"
    files = [expanded(name) for name in listed.split(os.pathsep) if name]
    found = [file for file in files if file.is_file()]
    if not found:
        raise InvalidInput(
            f"no kubeconfig at {listed}",
            hint="cluster.get_credentials(aks) writes one, as az aks get-credentials does.",
        )
    merged: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "clusters": [], "contexts": [], "users": []}
    for file in found:
        config = read(file)
        merged["current-context"] = merged.get("current-context") or config.get("current-context")
        for section in _SECTIONS:
            known = {entry["name"] for entry in merged[section]}
            for entry in config.get(section) or ():
                if entry["name"] not in known:
                    merged[section].append(_with_absolute_files(entry, file.parent))
    return merged


def _with_absolute_files(entry: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a copy of an entry in which the names of files are absolute."""
    copied = dict(entry)
    for key, value in entry.items():
        if isinstance(value, dict):
            files = {name: str(folder / str(value[name])) for name in _FILES if value.get(name)}
            copied[key] = {**value, **files}
    return copied


def read(path: Path) -> dict[str, Any]:
    """Return one kubeconfig file as it is; an empty kubeconfig if the file does not exist or is empty.

    Raises:
        InvalidInput: the file is not a kubeconfig.
    """
    import yaml  # loaded only when a kubeconfig is read: importing it takes 20 ms

    empty = {"apiVersion": "v1", "kind": "Config", "clusters": [], "users": [], "contexts": [], "current-context": ""}
    try:
        found = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        return empty
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not a kubeconfig: it is not YAML", hint=_WRONG_FILE_HINT) from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read as a kubeconfig: {error.strerror}", hint=_WRONG_FILE_HINT) from error
    if found is None:
        return empty
    if not isinstance(found, dict):
        raise InvalidInput(f"{path} is not a kubeconfig: it is not a mapping", hint=_WRONG_FILE_HINT)
    for section in _SECTIONS:
        entries = found.get(section) or []
        named = isinstance(entries, list) and all(
            isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in entries
        )
        if not named:
            raise InvalidInput(
                f"{path} is not a kubeconfig: its {section} are not named entries", hint=_WRONG_FILE_HINT
            )
    return found


def write(path: Path, config: Mapping[str, Any]) -> None:
    """Replace a kubeconfig file in one step. Only its owner can read it then, because it has credentials.

    Raises:
        InvalidInput: the file cannot be written.
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes strings that are numbers or booleans for kubectl's YAML parser, but not for Python's: 1e5, 0o7, y."""

    def quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        style = "'" if re.match(r"[-+.]?\d|[yYnN]$", text) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)

    Dumper.add_representer(str, quoted)
    target = path.resolve()  # a symbolic link is kept
    write_text(target, yaml.dump(dict(config), Dumper=Dumper, sort_keys=False))


def write_text(path: Path, text: str) -> None:
    """Replace a file with credentials in one step; raises InvalidInput if it cannot be written."""
    try:
        write_private(path, text)
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be written: {error.strerror or error}",
            hint="Free some space on its disk, correct its permissions, or name another file.",
        ) from error


def with_admin_context(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a kubeconfig whose administrators' contexts have names of their own, ending in ``-admin``.

    AKS gives the contexts of users and administrators the same name. ``az aks get-credentials`` renames them too.
    """
    names: dict[str, str] = {}
    contexts: list[dict[str, Any]] = []
    for entry in config.get("contexts") or ():
        name = entry["name"]
        user = str(mapping(entry.get("context"), f"context {name!r}").get("user") or "")
        if user.startswith("clusterAdmin") and not name.endswith("-admin"):
            names[name] = f"{name}-admin"
        contexts.append({**entry, "name": names.get(name, name)})
    current = config.get("current-context")
    return {**config, "contexts": contexts, "current-context": names.get(str(current), current)}


def merge(into: Mapping[str, Any], addition: Mapping[str, Any], *, where: str, overwrite: bool) -> dict[str, Any]:
    """Return a kubeconfig with the entries of another one and its current context.

    Args:
        into: the existing kubeconfig.
        addition: the kubeconfig to add.
        where: name of the existing file, for the error.
        overwrite: whether to replace entries of the same name that differ.

    Raises:
        AzureConflict: an entry of the same name differs, and ``overwrite`` is False.
    """
    merged = dict(into)
    for section in _SECTIONS:
        entries = {entry["name"]: entry for entry in into.get(section) or ()}
        for entry in addition.get(section) or ():
            name = entry["name"]
            if name in entries and entries[name] != entry and not overwrite:
                raise AzureConflict(
                    f"{where} has another entry {name!r} in {section}",
                    hint="Replace it with overwrite_existing=True, or write to another file with file=...",
                )
            entries[name] = entry
        merged[section] = list(entries.values())
    merged["current-context"] = addition.get("current-context") or into.get("current-context") or ""
    return merged


def user_of(config: Mapping[str, Any], context: str | None = None) -> dict[str, Any]:
    """Return the user of a context; empty if the context names none. None as context means the current one."""
    wanted = context or config.get("current-context")
    for entry in config.get("contexts") or ():
        if entry["name"] == wanted:
            name = mapping(entry.get("context"), f"context {wanted!r}").get("user")
            for user in config.get("users") or ():
                if user["name"] == name:
                    return mapping(user.get("user"), f"user {name!r}")
    return {}


def mapping(value: Any, what: str) -> dict[str, Any]:
    """Return a mapping of a kubeconfig; empty if it is missing. Errors do not show it, since it may hold secrets."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidInput(
            f"the kubeconfig's {what} must be a mapping, got {type(value).__name__}",
            hint="Correct it, or fetch the credentials again.",
        )
    return dict(value)


def entra_server(user: Mapping[str, Any]) -> str | None:
    """Return the id of the Entra ID application that a user's token is for; None if the user has no Entra ID login.

    A kubeconfig asks for such a login by running ``kubelogin``, or in old files with the ``azure`` auth provider.
    """
    runs = mapping(user.get("exec"), "exec")
    if Path(str(runs.get("command") or "")).stem == "kubelogin":
        given = runs.get("args") or []
        if not isinstance(given, list):
            raise InvalidInput(
                f"`args` in the kubeconfig's exec must be a list, got {type(given).__name__}",
                hint="Correct it, or fetch the credentials again.",
            )
        arguments = [str(argument) for argument in given]
        # Another program of the same name logs in to any OpenID Connect provider.
        return None if any(each.startswith("--oidc-") for each in arguments) else _option("--server-id", arguments)
    provider = mapping(user.get("auth-provider"), "auth-provider")
    if provider.get("name") == "azure":
        return str(mapping(provider.get("config"), "auth-provider's config").get("apiserver-id") or "")
    return None


def _option(name: str, arguments: list[str]) -> str:
    """Return the value of an option, ``--name=value`` or ``--name value``; empty if it is not given."""
    for position, argument in enumerate(arguments):
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
        if argument == name:
            return "".join(arguments[position + 1 : position + 2])
    return ""
