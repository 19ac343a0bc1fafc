"""What this machine lets a process use, and what is installed on it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from importlib import metadata


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those of some packages that are installed, in the order given."""
    versions = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
