"""Dataset files on disk: written whole or not at all, and read whole or not at all.

How files from elsewhere are opened without trusting them is in `reading`, and how a file that does
not fit into memory is used in `cache`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from safer_offline.datasets.dataset.constants import find_constant_problems
from safer_offline.datasets.dataset.hashing import (
    ArrayHashes,
    hash_arrays,
    join_hashes,
    verify_hashes,
)
from safer_offline.datasets.dataset.in_memory import OfflineDataset, as_columns
from safer_offline.datasets.dataset.problems import Problem
from safer_offline.datasets.dataset.schema import Metadata
from safer_offline.datasets.dataset.validation import find_problems, raise_first_error
from safer_offline.datasets.storage.contents import Contents, survey
from safer_offline.datasets.storage.diagnosis import DAMAGED, explain_reading
from safer_offline.datasets.storage.layouts import find_missing
from safer_offline.datasets.storage.reading import open_file, read_metadata
from safer_offline.errors import DataError, UsageError
from safer_offline.files import PatientFile, make_folder, writing

CHUNK_ROWS = 16_384


def save_dataset(path: str | Path, dataset: OfflineDataset, *, overwrite: bool = False) -> Metadata:
    """Write a dataset so that at every moment `path` holds the old file, the new one, or none.

    Args:
        path: Where to; folders are made.
        dataset: What to write. It is checked first.
        overwrite: Whether a file that is there already may be replaced.

    Returns:
        The metadata as written, with hashes and counts.

    Raises:
        UsageError: If there is something at `path` that must not be replaced.
        DataError: If the dataset breaks the format.
        OutputError: If it cannot be written: the disk is full, or the place is not for you.
    """
    path = Path(path)
    _require_free(path, overwrite=overwrite)
    arrays = as_columns(dataset.to_arrays())
    raise_first_error(find_problems(arrays, dataset.metadata), path=path)
    hashes = hash_arrays(arrays)
    metadata = dataclasses.replace(
        dataset.metadata,
        num_episodes=dataset.num_episodes,
        num_transitions=dataset.num_transitions,
        array_sha256=hashes,
        content_sha256=join_hashes(arrays, hashes),
    )
    attributes = metadata.to_attributes()
    make_folder(path.parent)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    with writing(path, what="the file"):
        try:
            _write_arrays(temporary, arrays, attributes)
            _require_free(path, overwrite=overwrite)
            temporary.replace(path)
            with contextlib.suppress(OSError):  # some file systems cannot do that
                _flush_to_disk(path.parent)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    return metadata


def _write_arrays(
    path: Path, arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, str | int | float]
) -> None:
    """Write a new file; an `OSError` is raised after HDF5 has done with it."""
    with contextlib.closing(PatientFile(path)) as disk:
        with h5py.File(disk, "w") as file:
            _write_attributes(file, attributes)
            for name, array in arrays.items():
                file.create_dataset(
                    name,
                    data=array,
                    chunks=(min(CHUNK_ROWS, len(array)), *array.shape[1:]),
                    compression="gzip",
                    compression_opts=4,
                    shuffle=True,
                    fletcher32=True,
                )
                if disk.failure is not None:
                    break
        disk.finish()


def read_file(path: str | Path) -> OfflineDataset:
    """Read a dataset into memory and check all of it.

    A file with just the seven arrays and no attributes is welcome. Numbers become float32, flags
    bool. What is odd but usable is reported with `warnings.warn`.

    Args:
        path: A file of format v1, or any HDF5 file in the layout of DSRL.

    Raises:
        DataError: If the file is missing, damaged, no dataset, unsafe to read, or breaks the
            format; the message names file, array, first row and remedy.
    """
    path = Path(path)
    arrays, metadata, contents = read_arrays(path)
    raise_first_error(find_missing(path, contents), path=path)
    contents.warn(path, stacklevel=2)
    return OfflineDataset.from_arrays(arrays, metadata=metadata, path=path)


def find_file_problems(path: str | Path) -> list[Problem]:
    """Everything that is wrong with a file, worst first; nothing is raised for bad data."""
    path = Path(path)
    try:
        arrays, metadata, contents = read_arrays(path)
    except DataError as error:
        return [
            Problem(
                field=error.field,
                index=error.index,
                problem=error.problem,
                remedy=error.remedy or DAMAGED,
            )
        ]
    problems = find_missing(path, contents) or find_problems(arrays, metadata)
    if not any(problem.severity == "error" for problem in problems):
        problems += find_constant_problems(arrays)
    return problems + contents.problems()


def content_sha256(dataset: OfflineDataset) -> str:
    """The hash of a dataset's arrays that `save_dataset` stores, whether it was saved or not."""
    return dataset.fingerprint()


def peek_metadata(path: str | Path) -> Metadata:
    """The metadata of a file without reading its arrays.

    Raises:
        DataError: If the file is missing, damaged, or of another major version of the format.
    """
    path = Path(path)
    with open_file(path) as file:
        return read_metadata(file, path=path)


def read_arrays(
    path: str | Path, *, group: str = "", names: Mapping[str, str] | None = None
) -> tuple[dict[str, NDArray[Any]], Metadata, Contents]:
    """The arrays of a file by name, its metadata, and what else is in it.

    Hashes are verified, values are not judged.

    Args:
        path: Any HDF5 file; arrays that the format does not know are left out.
        group: See `survey`, like `names`.
        names: See there. Hashes are those of our own names, and say nothing of others.

    Raises:
        DataError: If the file is missing, damaged, no dataset, unsafe to read, or too large.
        UsageError: If there is nothing under one of `names`.
    """
    path = Path(path)
    with open_file(path) as file, ArrayHashes() as hashes:
        metadata = read_metadata(file, path=path)
        contents = survey(file, path=path, group=group, names=names)
        stored = contents.arrays
        declared = sum(entry.nbytes for entry in stored.values())
        if declared > _physical_memory():
            raise DataError(
                f"the arrays take {declared / 1e9:.3g} GB, this machine has "
                f"{_physical_memory() / 1e9:.3g} GB of memory",
                path=path,
                remedy="use a machine with more memory, or a part of the dataset; to train, "
                "nothing is needed: `safer-offline train` reads such a file piece by piece",
            )
        known = bool(metadata.array_sha256 or metadata.content_sha256) and not (group or names)
        raw = {}
        for name, entry in stored.items():
            try:
                raw[name] = np.asarray(entry[...])
            except (OSError, RuntimeError, MemoryError) as error:
                raise explain_reading(path, error, field=name, entry=entry) from error
            if known:
                hashes.update(name, raw[name])
        if known:
            verify_hashes(raw, hashes.hexdigests(), metadata, path=path)
    return as_columns(raw), metadata, contents


def _write_attributes(file: h5py.File, attributes: Mapping[str, str | int | float]) -> None:
    for name, value in attributes.items():
        if isinstance(value, str):
            # Of fixed length, not h5py's default: the library that reads strings of variable
            # length goes round in circles for ever where a bit of them has flipped.
            text = value.encode()
            file.attrs.create(name, text, dtype=h5py.string_dtype("utf-8", len(text)))
        else:
            file.attrs[name] = value


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _require_free(path: Path, *, overwrite: bool) -> None:
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the file to write, such as {path / 'data.h5'}")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists already and was left as it is; remove it or name another")


def _flush_to_disk(path: Path) -> None:
    """Make a file, or the entries of a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
