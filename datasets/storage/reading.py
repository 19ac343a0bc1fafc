"""Reading HDF5 files without trusting them.

A file from elsewhere can point at other files, declare terabytes in a kilobyte, or hold Python
objects; a copy can be cut short or have a bit flipped. All of that ends in a message here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from safer_offline.datasets.dataset.schema import ARRAYS, INFO_PREFIX, MAX_ATTRIBUTE_BYTES, Metadata
from safer_offline.errors import DataError

# Deflate cannot shrink data by more than 1032; a file that declares more stores no data for it.
MAX_COMPRESSION = 1_100
DAMAGED = "the file is damaged: get it again from where it came, or collect it anew"


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file, open for reading; whatever h5py raises within the context is explained.

    Raises:
        DataError: If the file is missing, no HDF5 file, damaged, or must not be read.
    """
    if not path.exists():
        raise DataError(
            "there is no such file",
            path=path,
            remedy="check the path, or make a dataset with `safer-offline collect`",
        )
    if not path.is_file():
        raise DataError("this is no file", path=path, remedy="name the dataset file itself (.h5)")
    try:
        file = h5py.File(path, "r")
    except PermissionError as error:
        raise DataError(
            "you may not read the file", path=path, remedy="ask its owner, or change its mode"
        ) from error
    except (OSError, RuntimeError) as error:
        with path.open("rb") as raw:
            is_hdf5 = raw.read(8) == b"\x89HDF\r\n\x1a\n"
        if is_hdf5:
            raise DataError(f"cannot be opened ({error})", path=path, remedy=DAMAGED) from error
        raise DataError(
            "this is no HDF5 file" if path.stat().st_size else "the file is empty",
            path=path,
            remedy="a dataset is an HDF5 file with the arrays " + ", ".join(ARRAYS),
        ) from error
    try:
        with file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        # Whatever h5py raises where a damaged or strange file surprises it.
        raise DataError(f"cannot be read ({error})", path=path, remedy=DAMAGED) from error


def read_metadata(file: h5py.File, *, path: Path) -> Metadata:
    """What the attributes of an open file say.

    Raises:
        DataError: If one is not what its name promises, or the schema is of another version.
    """
    return Metadata.from_attributes(_read_attributes(file), path=path)


def find_arrays(file: h5py.File, *, path: Path) -> dict[str, h5py.Dataset]:
    """The arrays of the format in a file, none of which leads out of it or lies about its size.

    Raises:
        DataError: If one of them does, or holds something else than real numbers.
    """
    groups = {"": file}
    if _is_plain_link(file, "infos") and isinstance(file["infos"], h5py.Group):
        groups[INFO_PREFIX] = file["infos"]
    arrays = {}
    for prefix, group in groups.items():
        for key in group:
            name = prefix + key
            if not _is_plain_link(group, key):
                raise DataError(
                    "is a link to somewhere else",
                    path=path,
                    field=name,
                    remedy="a dataset must hold its data itself: copy the array into the file",
                )
            entry = group[key]
            if (prefix or key in ARRAYS) and isinstance(entry, h5py.Dataset):
                _require_safe(entry, name=name, path=path)
                arrays[name] = entry
    return arrays


def _read_attributes(file: h5py.File) -> dict[str, Any]:
    names = {"schema", *(entry.name for entry in dataclasses.fields(Metadata))} & set(file.attrs)
    values = {}
    for name in names:
        # Ours are single small values. An attribute may declare any number of them, and reading
        # it would allocate them all; as None it is refused by name.
        entry = file.attrs.get_id(name)
        small = entry.shape == () and entry.get_storage_size() <= MAX_ATTRIBUTE_BYTES
        values[name] = file.attrs[name] if small else None
    return values


def _is_plain_link(group: h5py.Group, key: str) -> bool:
    return isinstance(group.get(key, getlink=True), h5py.HardLink)


def _require_safe(entry: h5py.Dataset, *, name: str, path: Path) -> None:
    """Refuse an array that takes its data from elsewhere, or that is larger than what it stores."""
    try:
        kind = entry.dtype.kind
    except TypeError:  # a type that NumPy does not have
        kind = "?"
    if kind not in "fiub" or entry.shape is None:
        raise DataError(
            "holds something else than real numbers",
            path=path,
            field=name,
            remedy="store it as float32 (flags as bool)",
        )
    if entry.is_virtual or entry.external is not None:
        raise DataError(
            "takes its data from another file",
            path=path,
            field=name,
            remedy="a dataset must hold its data itself: copy the array into the file",
        )
    # A chunk is allocated whole, however few of its rows the array uses.
    chunk = math.prod(entry.chunks or (0,)) * entry.dtype.itemsize
    declared = max(math.prod(entry.shape) * entry.dtype.itemsize, chunk)
    stored = entry.id.get_storage_size()
    if declared > MAX_COMPRESSION * stored:
        raise DataError(
            f"declares {declared / 1e9:.3g} GB, the file stores {stored} bytes for it",
            path=path,
            field=name,
            remedy=DAMAGED,
        )
