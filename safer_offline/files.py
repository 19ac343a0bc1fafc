"""Writing files so that a crash never leaves half of one, and saying why it cannot be done."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safer_offline.errors import OutputError

REMEDY = "check that the disk has room and that you may write there"
_TRIAL = ".try-"
_SUFFIX = len(".tmp-1234567")
"""What temporary names have more than those that they stand for."""


@contextlib.contextmanager
def writing(path: str | Path, *, what: str = "it", remedy: str = REMEDY) -> Iterator[None]:
    """Explain whatever goes wrong when something is written.

    Args:
        path: What the user knows of, for the message.
        what: What it is, such as `the cache`.
        remedy: What can be done.

    Raises:
        OutputError: For every `OSError`.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        place = Path(str(error.filename)) if error.filename is not None else Path(path)
        if place != Path(path):
            # A temporary name says nothing to the user.
            reason += f": {place.parent if place.name.startswith(_TRIAL) else place}"
        raise OutputError(
            f"{what} cannot be written ({reason})", path=path, remedy=remedy
        ) from error


def require_writable(path: str | Path) -> None:
    """Check, before the work, that something could be written at `path`; nothing is left behind.

    Args:
        path: A file, or a folder; neither it nor the folders above it need be there.

    Raises:
        OutputError: If not: a file in the way, a read-only place, a name that is too long.
    """
    path = Path(path).absolute()
    with writing(path, remedy="name another place, where you may write"):
        home = next(place for place in (path, *path.parents) if os.path.lexists(place))
        if home == path and not home.is_dir():
            home = path.parent
        if not home.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(home))
        longest = os.pathconf(home, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
        for part in path.relative_to(home).parts:
            if len(os.fsencode(part)) + _SUFFIX > longest:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), part)
        Path(tempfile.mkdtemp(prefix=_TRIAL, dir=home)).rmdir()


def make_folder(path: str | Path) -> Path:
    """A folder, with those above it, unless it is there.

    Raises:
        OutputError: If it cannot be made.
    """
    with writing(path):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by a file with this content; after a crash it is the old one or the new one.

    Args:
        path: Where to; its folder must exist.
        content: What the file shall hold.

    Raises:
        OutputError: If it cannot be written; what was there is untouched.
    """
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    with writing(path):
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a document of plain types, whole or not at all."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def find_moved(name: str, near: Path) -> Path | None:
    """The file where it was, or as far from `near` as it was from the place of the command.

    Args:
        name: As it was given to a command.
        near: What that command wrote.
    """
    home = near.absolute().parent
    for place in (Path(), home, *home.parents[:2]):
        # What stands in a damaged file need not be the name of any.
        with contextlib.suppress(OSError, ValueError):
            if (place / name).is_file():
                return place / name
    return None


class PatientFile(io.RawIOBase):
    """A new file for a library that must not notice that the disk is full.

    HDF5 crashes the process when it closes a file that it could not write. So the first failure is
    kept, what comes later goes nowhere, and whoever uses this looks at `failure` in the end.

    Args:
        path: Where to; what is there is replaced.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.failure: OSError | None = None
        self._file = path.open("w+b", buffering=0)

    def write(self, data: object) -> int:
        """Write all of it."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        written = 0
        while self.failure is None and written < len(view):
            try:
                written += self._file.write(view[written:]) or 0
            except OSError as error:
                self.failure = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Cut or extend the file."""
        if self.failure is None:
            try:
                return self._file.truncate(size)
            except OSError as error:
                self.failure = error
        return size or 0

    def finish(self) -> None:
        """Bring everything to the disk.

        Raises:
            OSError: The first failure.
        """
        if self.failure is None:
            os.fsync(self._file.fileno())
        else:
            raise self.failure

    def readinto(self, buffer: object) -> int:
        """Read what was written."""
        return self._file.readinto(buffer) or 0  # type: ignore[arg-type]

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place."""
        return self._file.tell()

    def readable(self) -> bool:
        """It is."""
        return True

    def writable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
