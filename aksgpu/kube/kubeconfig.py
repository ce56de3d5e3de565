"""Kubeconfigs as documents: read, merged as ``az aks get-credentials`` merges them, and written whole or not at all.

Knows files and names, not clusters: what to fetch and when is :mod:`aksgpu.cluster.credentials`' business.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aksgpu.common.private_files import write_private
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
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read as a kubeconfig: {error.strerror}", hint="Name another file."
        ) from error
    if found is None:
        return empty
    if not isinstance(found, dict) or any(not isinstance(found.get(s) or [], list) for s in _SECTIONS):
        raise InvalidInput(f"{path} is not a kubeconfig", hint="Move it away, or name another file.")
    for section in _SECTIONS:
        for entry in found.get(section) or ():
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                raise InvalidInput(
                    f"{path} is not a kubeconfig: an entry of its {section} has no name",
                    hint="Name it or remove it there, or name another file.",
                )
    return found


def write(path: Path, config: Mapping[str, Any]) -> None:
    """Write a kubeconfig whole or not at all; mode 0600 when it is new, its own mode otherwise."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes what kubectl's YAML takes for a number or a truth value and Python's for a text: 1e5, 0o7, y."""

    def quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        style = "'" if re.match(r"[-+.]?\d|[yYnN]$", text) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)

    Dumper.add_representer(str, quoted)
    target = path.resolve()  # a link stays one
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
    write_private(target, yaml.dump(dict(config), Dumper=Dumper, sort_keys=False), mode)


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
            name = _mapping(entry.get("context"), f"context {wanted!r}").get("user")
            for user in config.get("users") or ():
                if user["name"] == name:
                    return _mapping(user.get("user"), f"user {name!r}")
    return {}


def _mapping(value: Any, what: str) -> dict[str, Any]:
    """A part of a kubeconfig, which may be missing and is a mapping otherwise. Secrets may be in it: never shown."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidInput(f"the kubeconfig's {what} is no mapping", hint="Correct it, or fetch the credentials anew.")
    return dict(value)


def entra_server(user: Mapping[str, Any]) -> str | None:
    """The id of the Entra ID application that a user's token has to be for; None where Entra ID is not asked for.

    Two kinds of kubeconfig ask for it: those that run ``kubelogin``, and old ones with the ``azure`` auth provider.
    """
    runs = _mapping(user.get("exec"), "exec")
    if Path(str(runs.get("command") or "")).stem == "kubelogin":
        given = runs.get("args") or []
        if not isinstance(given, list):
            raise InvalidInput("the kubeconfig's exec has args that are no list", hint="Correct them.")
        arguments = [str(argument) for argument in given]
        # Another program of this name logs in to any provider of OpenID Connect.
        return None if any(each.startswith("--oidc-") for each in arguments) else _option("--server-id", arguments)
    provider = _mapping(user.get("auth-provider"), "auth-provider")
    if provider.get("name") == "azure":
        return str(_mapping(provider.get("config"), "auth-provider's config").get("apiserver-id") or "")
    return None


def _option(name: str, arguments: list[str]) -> str:
    """An option's value, in either form; empty when it is not given."""
    for position, argument in enumerate(arguments):
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
        if argument == name:
            return "".join(arguments[position + 1 : position + 2])
    return ""
