"""SHA-256 of the arrays of a dataset, and of all of them together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from safer_offline.datasets.dataset.schema import Metadata
from safer_offline.errors import DataError

CHANGED = (
    "the file is damaged or was edited: get the original again; if you changed it on purpose, "
    "delete the attributes 'array_sha256' and 'content_sha256'"
)


class ArrayLike(Protocol):
    """What is known of an array without its values: NumPy's and HDF5's arrays have these."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its numbers."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...


class ArrayHashes:
    """SHA-256 of several arrays, each fed in pieces from its first row to its last.

    A thread of its own does the work, which leaves Python free to read the next piece meanwhile.
    Use it as a context: leaving it ends the thread.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Any] = {}
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._pending: list[Future[None]] = []

    def __enter__(self) -> ArrayHashes:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def update(self, name: str, piece: NDArray[Any]) -> None:
        """Feed the next rows of an array; they must not change before `hexdigests`."""
        sums = self._sums.setdefault(name, hashlib.sha256())
        self._pending.append(self._thread.submit(sums.update, np.ascontiguousarray(piece).data))

    def wait(self) -> None:
        """Until everything fed so far is absorbed; the pieces may change then."""
        for future in self._pending:
            future.result()
        self._pending.clear()

    def hexdigests(self) -> dict[str, str]:
        """The hash of each array."""
        self.wait()
        return {name: sums.hexdigest() for name, sums in self._sums.items()}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read piece by piece."""
    sums = hashlib.sha256()
    buffer = memoryview(bytearray(2**20))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            sums.update(buffer[:count])
    return sums.hexdigest()


def hash_arrays(arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """SHA-256 of each array's values."""
    return {
        name: hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
        for name, array in arrays.items()
    }


def join_hashes(arrays: Mapping[str, ArrayLike], hashes: Mapping[str, str]) -> str:
    """One hash of all arrays: of their names, types, shapes and hashes, in order of the names."""
    lines = [
        f"{name} {arrays[name].dtype.str} {arrays[name].shape} {hashes[name]}\n"
        for name in sorted(arrays)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def verify_hashes(
    arrays: Mapping[str, ArrayLike], hashes: Mapping[str, str], metadata: Metadata, *, path: Path
) -> None:
    """Compare the hashes of a file's arrays with those stored with them, where there are any.

    Args:
        arrays: As they are in the file.
        hashes: What their values hash to.
        metadata: The file's.
        path: The file, for messages.

    Raises:
        DataError: If they differ.
    """
    for name, expected in metadata.array_sha256.items():
        if name in hashes and hashes[name] != expected:
            raise DataError(
                "the values are not the ones that were saved (SHA-256 differs)",
                path=path,
                field=name,
                remedy=CHANGED,
            )
    if metadata.content_sha256 not in ("", join_hashes(arrays, hashes)):
        changed = sorted(set(hashes) ^ set(metadata.array_sha256))
        raise DataError(
            f"the arrays are not the ones that were saved (differing: {', '.join(changed)})",
            path=path,
            field="content_sha256",
            remedy=CHANGED,
        )
