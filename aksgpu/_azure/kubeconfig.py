"""Kubeconfigs as documents: read, merged as ``az aks get-credentials`` merges them, and written whole or not at all.

Knows files and names, not clusters: what to fetch and when is :mod:`aksgpu._azure.credentials`' business.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aksgpu._files import write_private
from aksgpu.errors import AzureConflict, InvalidInput

_SECTIONS = ("clusters", "users", "contexts")


def default_file() -> Path:
    """The file that the user's kubectl writes to: the first of ``KUBECONFIG``, else ``~/.kube/config``."""
    named = [name for name in os.environ.get("KUBECONFIG", "").split(os.pathsep) if name]
    return Path(named[0] if named else "~/.kube/config").expanduser()


def read(path: Path) -> dict[str, Any]:
    """A kubeconfig; an empty one when the file does not exist or is empty.

    Raises:
        InvalidInput: the file is not a kubeconfig.
    """
    import yaml

    empty = {"apiVersion": "v1", "kind": "Config", "clusters": [], "users": [], "contexts": [], "current-context": ""}
    try:
        found = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        return empty
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{path} is not a kubeconfig: it is no YAML", hint="Move it away, or name another."
        ) from error
    if found is None:
        return empty
    if not isinstance(found, dict) or any(not isinstance(found.get(s) or [], list) for s in _SECTIONS):
        raise InvalidInput(f"{path} is not a kubeconfig", hint="Move it away, or name another file.")
    return found


def write(path: Path, config: Mapping[str, Any]) -> None:
    """Write a kubeconfig whole or not at all; mode 0600 when it is new, its own mode otherwise."""
    import yaml

    target = path.resolve()  # a link stays one
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
    write_private(target, yaml.safe_dump(dict(config), sort_keys=False), mode)


def merge(into: Mapping[str, Any], addition: Mapping[str, Any], *, where: str, overwrite: bool) -> dict[str, Any]:
    """One kubeconfig with another one's entries, and its current context.

    Args:
        into: what exists.
        addition: what is added.
        where: name of the existing file, for the error.
        overwrite: replace entries of the same name that differ.

    Raises:
        AzureConflict: an entry of the same name differs.
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
    """The user's section that a context names; empty when it names none."""
    wanted = context or config.get("current-context")
    for entry in config.get("contexts") or ():
        if entry["name"] == wanted:
            name = (entry.get("context") or {}).get("user")
            for user in config.get("users") or ():
                if user["name"] == name:
                    return dict(user.get("user") or {})
    return {}


def entra_server(user: Mapping[str, Any]) -> str | None:
    """The id of the Entra ID application that a user's token has to be for; None where Entra ID is not asked for.

    Two kinds of kubeconfig ask for it: those that run ``kubelogin``, and old ones with the ``azure`` auth provider.
    """
    runs = user.get("exec") or {}
    if Path(str(runs.get("command") or "")).stem == "kubelogin":
        arguments = [str(argument) for argument in runs.get("args") or ()]
        if "--server-id" in arguments[:-1]:
            return arguments[arguments.index("--server-id") + 1]
        return ""
    provider = user.get("auth-provider") or {}
    if provider.get("name") == "azure":
        return str((provider.get("config") or {}).get("apiserver-id") or "")
    return None
