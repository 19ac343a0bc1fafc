"""Dataset files on disk: written whole or not at all, and read without trusting them.

An HDF5 file from elsewhere can point at other files, declare terabytes in a kilobyte, or hold
Python objects; a copy can be cut short or have a bit flipped. All of that ends in a message here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from safer_offline.datasets.dataset import OfflineDataset, as_columns
from safer_offline.datasets.schema import ARRAYS, INFO_PREFIX, MAX_ATTRIBUTE_BYTES, Metadata
from safer_offline.datasets.validation import Problem, find_problems, raise_first_error
from safer_offline.errors import DataError, UsageError

CHUNK_ROWS = 16_384
# Deflate cannot shrink data by more than 1032; a file that declares more stores no data for it.
MAX_COMPRESSION = 1_100
DAMAGED = "the file is damaged: get it again from where it came, or collect it anew"
CHANGED = (
    "the file is damaged or was edited: get the original again; if you changed it on purpose, "
    "delete the attributes 'array_sha256' and 'content_sha256'"
)


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
        DataError: If the dataset breaks the format, or the disk is full.
    """
    path = Path(path)
    _require_free(path, overwrite=overwrite)
    arrays = as_columns(dataset.to_arrays())
    raise_first_error(find_problems(arrays, dataset.metadata), path=path)
    hashes = _hash_arrays(arrays)
    metadata = dataclasses.replace(
        dataset.metadata,
        num_episodes=dataset.num_episodes,
        num_transitions=dataset.num_transitions,
        array_sha256=hashes,
        content_sha256=_join_hashes(arrays, hashes),
    )
    attributes = metadata.to_attributes()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with h5py.File(temporary, "w") as file:
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
        _flush_to_disk(temporary)
        _require_free(path, overwrite=overwrite)
        temporary.replace(path)
        _flush_to_disk(path.parent)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"the file cannot be written ({error})",
            path=path,
            remedy="check that the disk has room and that you may write there",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return metadata


def load_dataset(path: str | Path) -> OfflineDataset:
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
    arrays, metadata = _read(path)
    return OfflineDataset.from_arrays(arrays, metadata=metadata, path=path)


def find_file_problems(path: str | Path) -> list[Problem]:
    """Everything that is wrong with a file, worst first; nothing is raised for bad data."""
    path = Path(path)
    try:
        arrays, metadata = _read(path)
    except DataError as error:
        return [
            Problem(
                field=error.field,
                index=error.index,
                problem=error.problem,
                remedy=error.remedy or DAMAGED,
            )
        ]
    with _open(path) as file:
        strangers = sorted(set(file) - set(ARRAYS) - {"infos"})
    return find_problems(arrays, metadata) + [
        Problem(
            field=name,
            problem="is no array of this format and was not read",
            remedy=f"per-step columns belong in '{INFO_PREFIX}{name}', all else in attributes",
            severity="warning",
        )
        for name in strangers
    ]


def content_sha256(dataset: OfflineDataset) -> str:
    """The hash of a dataset's arrays that `save_dataset` stores, whether it was saved or not."""
    arrays = as_columns(dataset.to_arrays())
    return _join_hashes(arrays, _hash_arrays(arrays))


def peek_metadata(path: str | Path) -> Metadata:
    """The metadata of a file without reading its arrays.

    Raises:
        DataError: If the file is missing, damaged, or of another major version of the format.
    """
    path = Path(path)
    with _open(path) as file:
        return Metadata.from_attributes(_read_attributes(file), path=path)


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], Metadata]:
    with _open(path) as file:
        metadata = Metadata.from_attributes(_read_attributes(file), path=path)
        stored = _find_arrays(file, path=path)
        declared = sum(entry.nbytes for entry in stored.values())
        if declared > _physical_memory():
            raise DataError(
                f"the arrays take {declared / 1e9:.3g} GB, this machine has "
                f"{_physical_memory() / 1e9:.3g} GB of memory",
                path=path,
                remedy="use a machine with more memory, or a part of the dataset",
            )
        raw = {}
        for name, entry in stored.items():
            try:
                raw[name] = np.asarray(entry[...])
            except (OSError, RuntimeError) as error:
                raise DataError(
                    f"the array cannot be read ({error})", path=path, field=name, remedy=DAMAGED
                ) from error
    _verify_hashes(raw, metadata, path=path)
    return as_columns(raw), metadata


@contextlib.contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
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


def _write_attributes(file: h5py.File, attributes: Mapping[str, str | int | float]) -> None:
    for name, value in attributes.items():
        if isinstance(value, str):
            # Of fixed length, not h5py's default: the library that reads strings of variable
            # length goes round in circles for ever where a bit of them has flipped.
            text = value.encode()
            file.attrs.create(name, text, dtype=h5py.string_dtype("utf-8", len(text)))
        else:
            file.attrs[name] = value


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


def _find_arrays(file: h5py.File, *, path: Path) -> dict[str, h5py.Dataset]:
    """The arrays of the format in a file, none of which leads out of it or lies about its size."""
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


def _verify_hashes(arrays: Mapping[str, NDArray[Any]], metadata: Metadata, *, path: Path) -> None:
    """Compare the arrays with the hashes that were stored with them, where there are any."""
    if not metadata.array_sha256 and not metadata.content_sha256:
        return
    hashes = _hash_arrays(arrays)
    for name, expected in metadata.array_sha256.items():
        if name in hashes and hashes[name] != expected:
            raise DataError(
                "the values are not the ones that were saved (SHA-256 differs)",
                path=path,
                field=name,
                remedy=CHANGED,
            )
    if metadata.content_sha256 not in ("", _join_hashes(arrays, hashes)):
        changed = sorted(set(hashes) ^ set(metadata.array_sha256))
        raise DataError(
            f"the arrays are not the ones that were saved (differing: {', '.join(changed)})",
            path=path,
            field="content_sha256",
            remedy=CHANGED,
        )


def _hash_arrays(arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    return {
        name: hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
        for name, array in arrays.items()
    }


def _join_hashes(arrays: Mapping[str, NDArray[Any]], hashes: Mapping[str, str]) -> str:
    """One hash of all arrays: of their names, types, shapes and hashes, in order of the names."""
    lines = [
        f"{name} {arrays[name].dtype.str} {arrays[name].shape} {hashes[name]}\n"
        for name in sorted(arrays)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


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
