"""One process at a time writes into a folder; a lock ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from safer_offline.errors import UsageError
from safer_offline.files import make_folder

if sys.platform != "win32":
    import fcntl


@contextlib.contextmanager
def sole_writer(folder: str | Path) -> Iterator[None]:
    """Hold a folder, which is made if need be, and removed in the end if it stayed empty.

    Args:
        folder: The folder.

    Raises:
        UsageError: If another process holds it.
        OutputError: If it cannot be made.
    """
    folder = make_folder(folder)
    with locked(folder) as free:
        if not free:
            raise UsageError(
                f"{folder}: another process is writing there; wait until it is done, or give "
                "another --out"
            )
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only if it is empty


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Lock a folder while the context lasts, where the system can.

    Args:
        folder: It exists.
        wait: Whether to wait for another process that holds it.

    Yields:
        Whether the lock was free, or is held after waiting; a file system without locks is free.
    """
    if sys.platform == "win32":  # which has no such locks
        yield True
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            free = True
        except BlockingIOError:
            free = False
        except OSError:  # the file system knows no locks
            free = True
        yield free
    finally:
        os.close(descriptor)
