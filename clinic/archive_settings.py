# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The YAML in which an operator names archives: where each is, and which environment variables hold its secrets.

    radiology:
      url: https://pacs.example.org/dicom-web
      authorization: basic            # none, basic or bearer
      user_variable: PACS_USER
      password_variable: PACS_PASSWORD
      ca_file: hospital-ca.pem        # beside the YAML; without it, the usual authorities are trusted

The file holds no secret itself, so it may be read by many.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

VARIABLES = {"none": (), "basic": ("user_variable", "password_variable"), "bearer": ("token_variable",)}
"""Kinds of authorization, and the fields that name the variables with their secrets."""


class ArchiveError(ValueError):
    """What an archive, its settings or a request to it have wrong; one sentence, without values of a patient."""


@dataclass(frozen=True)
class ArchiveSettings:
    """One archive of the YAML.

    Attributes:
        name: what the operator calls it.
        url: its DICOMweb service; https, but for this machine itself.
        authorization: a key of `VARIABLES`.
        user_variable, password_variable, token_variable: environment variables with the secrets.
        ca_file: certificates of authorities to trust in the place of the usual ones.
        attempts: how often a request is made whose answer is a server's error or does not come.
        first_wait_seconds: pause before the second attempt; each further one is twice as long.
        request_seconds: how long one answer may take.
    """

    name: str
    url: str
    authorization: str = "none"
    user_variable: str = ""
    password_variable: str = ""
    token_variable: str = ""
    ca_file: Path | None = None
    attempts: int = 5
    first_wait_seconds: float = 1.0
    request_seconds: float = 600.0

    def secrets(self, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
        """The values of the variables, in the order of `VARIABLES`.

        Raises:
            ArchiveError: where one is not set.
        """
        values = []
        for variable in (getattr(self, name) for name in VARIABLES[self.authorization]):
            if not environment.get(variable):
                raise ArchiveError(f"The archive {self.name} needs the environment variable {variable}; set it.")
            values.append(environment[variable])
        return tuple(values)


def read_settings(path: Path, name: str) -> ArchiveSettings:
    """The archive with that name in a YAML.

    Raises:
        ArchiveError: whatever is wrong with the file, in one sentence.
    """
    archives = _read(path)
    if name not in archives:
        raise ArchiveError(f"{path.name} names no archive {name}; it names {', '.join(archives)}.")
    return _check(name, archives[name], path.parent)


def read_all_settings(path: Path) -> list[ArchiveSettings]:
    """All archives of a YAML, in its order.

    Raises:
        ArchiveError: whatever is wrong with the file, in one sentence.
    """
    return [_check(name, given, path.parent) for name, given in _read(path).items()]


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Names and unchecked settings."""
    try:
        archives = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise ArchiveError(f"{path.name} cannot be read; give the YAML that names the archives.") from None
    except (yaml.YAMLError, RecursionError):
        raise ArchiveError(f"{path.name} is no YAML; see docs/archive.md for an example.") from None
    if not isinstance(archives, dict) or not all(isinstance(entry, dict) for entry in archives.values()):
        raise ArchiveError(f"{path.name} must give each archive's name and under it its settings.")
    return {str(name): given for name, given in archives.items()}


def _check(name: str, given: dict[str, Any], folder: Path) -> ArchiveSettings:
    """The settings, where they make sense; a `ca_file` counts from the folder of the YAML."""
    known = {item.name for item in fields(ArchiveSettings)} - {"name"}
    unknown = sorted(str(key) for key in given if key not in known)
    if unknown:
        raise ArchiveError(f"The archive {name} has unknown settings ({', '.join(unknown)}); known: {sorted(known)}.")
    texts = ("url", "authorization", "user_variable", "password_variable", "token_variable", "ca_file")
    numbers = ("attempts", "first_wait_seconds", "request_seconds")
    if not all(isinstance(given[key], str) for key in texts if key in given):
        raise ArchiveError(f"The archive {name} has settings that must be texts and are not: check {', '.join(texts)}.")
    if not all(type(given[key]) in (int, float) and given[key] > 0 for key in numbers if key in given):
        raise ArchiveError(f"The archive {name} has settings that must be numbers above 0: {', '.join(numbers)}.")
    if not isinstance(given.get("attempts", 1), int):
        raise ArchiveError(f"The archive {name} has attempts that are no whole number.")
    ca_file = folder / given["ca_file"] if "ca_file" in given else None
    settings = ArchiveSettings(**{"url": "", **given, "name": name, "ca_file": ca_file})
    if settings.authorization not in VARIABLES:
        raise ArchiveError(f"The archive {name} has an authorization that is none of {', '.join(VARIABLES)}.")
    missing = [key for key in VARIABLES[settings.authorization] if not getattr(settings, key)]
    if missing:
        raise ArchiveError(f"The archive {name} must name environment variables: {', '.join(missing)}.")
    if ca_file is not None and not ca_file.is_file():
        raise ArchiveError(f"The archive {name} names a ca_file that does not exist.")
    _check_url(name, settings.url)
    return settings


def _check_url(name: str, url: str) -> None:
    """Patients and secrets travel encrypted, except to this machine itself."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https") or parts.username or parts.query or parts.fragment:
        raise ArchiveError(f"The archive {name} needs a plain url, such as https://pacs.example.org/dicom-web.")
    if parts.scheme == "http" and not _is_this_machine(host):
        raise ArchiveError(f"The archive {name} has an http url; give https, as patients' data must not be readable.")


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
