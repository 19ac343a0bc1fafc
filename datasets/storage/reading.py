"""Reading HDF5 files without trusting them.

A file from elsewhere can point at other files, declare terabytes in a kilobyte, or hold Python
objects; a copy can be cut short or have a bit flipped. All of that ends in a message: here for the
file as a whole, in `contents` for what is in it, in `diagnosis` for what HDF5 complains about.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from safer_offline.datasets.dataset.schema import MAX_ATTRIBUTE_BYTES, Metadata
from safer_offline.datasets.storage.diagnosis import (
    explain_opening,
    explain_reading,
    explain_system,
)
from safer_offline.errors import DataError


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file, open for reading; whatever h5py raises within the context is explained.

    Raises:
        DataError: If the file is missing, no HDF5 file, in use, damaged, or must not be read.
    """
    try:
        exists = path.exists()
    except OSError as error:  # such as a folder on the way that may not be entered
        raise explain_system(path, error) from error
    if not exists:
        raise DataError(
            "there is no such file",
            path=path,
            remedy="check the path, or make a dataset with `safer-offline collect`",
        )
    if not path.is_file():
        raise DataError("this is no file", path=path, remedy="name the dataset file itself (.h5)")
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError, ValueError) as error:
        raise explain_opening(path, error) from error
    try:
        with file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        # Whatever h5py raises where a damaged or strange file surprises it.
        raise explain_reading(path, error) from error


def read_metadata(file: h5py.File, *, path: Path) -> Metadata:
    """What the attributes of an open file say.

    Raises:
        DataError: If one is not what its name promises, or the schema is of another version.
    """
    return Metadata.from_attributes(_read_attributes(file), path=path)


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
