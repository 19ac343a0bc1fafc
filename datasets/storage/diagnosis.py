"""Why HDF5 cannot open or read a file, as far as it can be told, and what to do about it.

"Damaged" is what remains when nothing else fits: to throw good data away because another program
has them open would be the worst advice. The library tells its reasons in English sentences only,
which are looked for here; one that is not recognized is passed on as it is.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
from pathlib import Path

import h5py

from safer_offline.datasets.dataset.schema import ARRAYS
from safer_offline.errors import DataError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
DAMAGED = "the file is damaged: get it again from where it came, or collect it anew"

_NEEDED = "a dataset is an HDF5 file with the arrays " + ", ".join(ARRAYS)
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (
        b"MATLAB 5.0",
        "this is a MATLAB file of the older kind, which is no HDF5",
        "save it in MATLAB with save(..., '-v7.3'), which is",
    ),
    (
        b"PK\x03\x04",
        "this is a ZIP archive, such as NumPy's .npz",
        "unpack it; arrays of an .npz go into a file with h5py: file[name] = array",
    ),
    (
        b"\x93NUMPY",
        "this is one NumPy array (.npy)",
        "write all arrays into one file with h5py: file[name] = array",
    ),
    (b"\x1f\x8b", "the file is compressed as a whole, with gzip", "unpack it first: gunzip"),
    (b"\xfd7zXZ", "the file is compressed as a whole, with xz", "unpack it first: unxz"),
    (b"(\xb5/\xfd", "the file is compressed as a whole, with zstd", "unpack it first: unzstd"),
    (
        b"version https://git-lfs",
        "this is a note of Git LFS in place of the file",
        "get the file itself: git lfs pull",
    ),
    (b"<", "this is a web page or XML, no dataset", "look at it: the download gave a page instead"),
    (
        b"\x80",
        "this is a Python pickle, which is never opened: it could run any program",
        "load it where you trust it, and write its arrays with h5py: file[name] = array",
    ),
)
"""How files begin that people take for a dataset, what they are, and what to do."""

_FILTERS = {
    4: "szip", 307: "bzip2", 32000: "lzf", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle",
    32013: "zfp", 32015: "zstd", 32017: "sz", 32018: "fcidecomp", 32024: "sz3", 32026: "blosc2",
}  # fmt: skip
"""Registered compressions by their numbers, https://github.com/HDFGroup/hdf5_plugins."""


def explain_opening(path: Path, error: Exception) -> DataError:
    """Why a file cannot be opened.

    Args:
        path: A file that exists.
        error: What h5py raised.
    """
    try:
        with path.open("rb") as raw:
            start = raw.read(4096)
    except OSError as refusal:
        return explain_system(path, refusal)
    text = str(error)
    if isinstance(error, BlockingIOError) or "unable to lock file" in text:
        return _explain_lock(path, error)
    if isinstance(error, OSError) and error.errno:
        return explain_system(path, error)
    if "h5clear" in text or "already open for" in text:
        return DataError(
            "the file says that a program is writing to it: one still is, or it was killed while "
            "it did",
            path=path,
            remedy="let the program finish and close the file. If none runs any more, clear the "
            f"mark with `h5clear -s {path}` (HDF5's own tool: apt install hdf5-tools, or brew "
            f"install hdf5), then look at what it got to write: `safer-offline data validate "
            f"{path}`",
        )
    if lengths := re.search(r"truncated file: eof = (\d+).*stored_eof = (\d+)", text):
        return DataError(
            f"the file is cut short: {int(lengths[1]):,} of {int(lengths[2]):,} bytes are there",
            path=path,
            remedy="copy or download it again. If it is the original, the program that wrote it "
            "was killed or the disk was full: collect it anew",
        )
    if _has_signature(path, start):
        return DataError(f"cannot be opened ({error})", path=path, remedy=DAMAGED)
    return _explain_foreign(path, start)


def explain_reading(
    path: Path, error: Exception, *, field: str | None = None, entry: h5py.Dataset | None = None
) -> DataError:
    """Why something in an open file cannot be read.

    Args:
        path: The file.
        error: What h5py raised.
        field: The array.
        entry: The array in the file, if it could be opened.
    """
    missing = missing_filters(entry) if entry is not None else []
    if missing:
        return explain_filters(path, missing, field=field)
    if isinstance(error, MemoryError):
        return DataError(
            f"there is not enough memory for it ({error})" if str(error) else "memory is exhausted",
            path=path,
            field=field,
            remedy="use a machine with more memory, or a part of the dataset",
        )
    number = re.search(r"errno = (\d+)", str(error))
    if (number and int(number[1])) or getattr(error, "errno", None):
        code = int(number[1]) if number else getattr(error, "errno", 0)
        return explain_system(path, OSError(code, os.strerror(code)))
    what = "the array cannot be read" if field else "cannot be read"
    return DataError(f"{what} ({error})", path=path, field=field, remedy=DAMAGED)


def explain_system(path: Path, error: OSError) -> DataError:
    """What the operating system does not let us do with a file."""
    if isinstance(error, PermissionError):
        return DataError(
            "you may not read the file", path=path, remedy="ask its owner, or change its mode"
        )
    reason = os.strerror(error.errno) if error.errno else str(error)
    remedy = "the system says so, not the file: try again, or copy the file elsewhere first"
    if error.errno in (
        errno.EIO,
        errno.ESTALE,
        errno.EREMOTEIO if hasattr(errno, "EREMOTEIO") else errno.EIO,
    ):
        remedy = "the disk or the network drive fails: try again, then copy the file elsewhere"
    return DataError(f"cannot be read: {reason}", path=path, remedy=remedy)


def missing_filters(entry: h5py.Dataset) -> list[str]:
    """Compressions of an array that this machine lacks; none where nothing was written with them.

    The package hdf5plugin, which holds the common ones, is loaded if it is installed.
    """
    if not entry.id.get_storage_size():
        return []
    layout = entry.id.get_create_plist()
    used = [layout.get_filter(place) for place in range(layout.get_nfilters())]
    if not all(h5py.h5z.filter_avail(code) for code, *_ in used):
        with contextlib.suppress(ImportError):
            importlib.import_module("hdf5plugin")  # makes them known to HDF5
    return [
        _FILTERS.get(code) or name.decode(errors="replace") or f"filter {code}"
        for code, _, _, name in used
        if not h5py.h5z.filter_avail(code)
    ]


def explain_filters(path: Path, missing: list[str], *, field: str | None) -> DataError:
    """That an array is compressed in a way that this machine does not know."""
    return DataError(
        f"is compressed by {' and '.join(missing)}, which is not installed here",
        path=path,
        field=field,
        remedy="`pip install hdf5plugin` brings the usual ones; or rewrite the file where it can "
        f"be read: `h5repack -f GZIP=4 {path} NEW.h5`",
    )


def _explain_lock(path: Path, error: Exception) -> DataError:
    code = getattr(error, "errno", None)
    if code in (None, errno.EAGAIN, errno.EACCES):
        holder = _lock_holder(path)
        return DataError(
            f"another program has the file open for writing{holder}",
            path=path,
            remedy="wait until it has finished, or close the file there (a notebook keeps it until "
            "file.close())",
        )
    return DataError(
        f"the disk it lies on does not do locks ({os.strerror(code)})",
        path=path,
        remedy="if nobody is writing to it, read it without: HDF5_USE_FILE_LOCKING=FALSE before "
        "the command",
    )


def _lock_holder(path: Path) -> str:
    """Which process has locked a file, where Linux tells: ` (process 4711, python)`."""
    try:
        inode = path.stat().st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[5].rpartition(":")[2] == str(inode):
                name = Path(f"/proc/{words[4]}/comm").read_text().strip()
                return f" (process {words[4]}, {name})"
    except (OSError, IndexError):
        pass
    return ""


def _has_signature(path: Path, start: bytes) -> bool:
    """Whether this was an HDF5 file; programs may put 512, 1024, ... bytes of theirs before it."""
    if SIGNATURE in (start[:8], start[512:520], start[1024:1032], start[2048:2056]):
        return True
    return bool(h5py.is_hdf5(path))


def _explain_foreign(path: Path, start: bytes) -> DataError:
    if not start:
        return DataError("the file is empty", path=path, remedy=_NEEDED)
    for signature, what, remedy in _FOREIGN:
        if start.lstrip().startswith(signature):
            return DataError(what, path=path, remedy=f"{remedy}; {_NEEDED}")
    return DataError("this is no HDF5 file", path=path, remedy=_NEEDED)
