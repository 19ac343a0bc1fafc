"""What this machine lets a process use, and what is installed on it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from safer_offline.errors import UsageError


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def require_main_module() -> None:
    """Check that new processes can begin as this one did: they import its main module anew.

    Raises:
        UsageError: If it has no file that could be imported, as where Python reads a script from
            its standard input; also in a process that is importing it just now, because what
            starts processes does not stand under `if __name__ == "__main__":`.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # The first process says so in a sentence; here a traceback would only hide it.
        raise SystemExit(1)
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is not None and getattr(main, "__spec__", None) is None and not Path(file).exists():
        raise UsageError(
            f"simulation runs on several processes, which must import the script, but {file} is no "
            "file: put the script into a file, under `if __name__ == '__main__':`"
        )


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those of some packages that are installed, in the order given."""
    versions = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions
