"""Rows of numbers in a file on disk: read in blocks, or gathered here and there.

Memory stays bounded because blocks are read into buffers of their own, and because a gather sweeps
over the mapped file in windows whose pages are let go behind it. (What the system keeps in its
cache of files is nobody's memory: it is given back whenever someone wants it.)
"""

from __future__ import annotations

import mmap
import os
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from safer_offline.datasets.dataset.access import BLOCK_ROWS, Columns
from safer_offline.errors import DataError

FETCH_ROWS = 2**18
"""Rows fetched at once: many, because a sweep over the file costs almost the same for few."""

WINDOW_BYTES = 2**26

Places = Mapping[str, int | slice]
"""Where the columns of a table are within a row: one number, or several."""


class PackedRows:
    """A matrix of float32 in a file, of which nothing is held in memory.

    Args:
        file: The file, open for reading; it is closed with this object, and must not be cut short
            before.
        path: Its name, for messages.
        shape: Rows N and numbers in a row.
        offset: Bytes before the first row, a multiple of 4.

    Raises:
        DataError: If the file is not of that size.
    """

    def __init__(
        self, file: BinaryIO, *, path: Path, shape: tuple[int, int], offset: int = 0
    ) -> None:
        self.num_rows, self._width = shape
        self._row_bytes = 4 * self._width
        self._file = file
        weakref.finalize(self, file.close)
        self._path = path
        self._offset = offset
        size = offset + self.num_rows * self._row_bytes
        if os.fstat(file.fileno()).st_size != size:
            raise DataError(f"has not the size of {size} bytes that it should have", path=path)
        self._map = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it cannot be written to, and nobody does
            flat = torch.from_numpy(np.frombuffer(self._map, np.float32, offset=offset))
        self._mapped = flat.reshape(shape)

    def read(self, start: int, stop: int) -> Tensor:
        """Consecutive rows, (stop - start, width).

        Raises:
            DataError: If the disk fails.
        """
        rows = np.empty((stop - start, self._width), np.float32)
        rest = rows.data.cast("B")
        place = self._offset + start * self._row_bytes
        while rest:
            count = os.preadv(self._file.fileno(), [rest], place)
            if not count:
                raise DataError("was cut short while it was in use", path=self._path)
            rest, place = rest[count:], place + count
        return torch.from_numpy(rows)

    def gather(self, rows: Tensor) -> Tensor:
        """Rows (n,) in ascending order, (n, width)."""
        gathered = torch.empty((len(rows), self._width))
        size = self._offset + self.num_rows * self._row_bytes
        # Where reads are few and far between, reading ahead would read in vain.
        sparse = len(rows) * mmap.PAGESIZE * 32 < size
        self._map.madvise(mmap.MADV_RANDOM if sparse else mmap.MADV_NORMAL)
        # In steps of whole rows; a window begins at the page that holds its first number.
        step = max(1, WINDOW_BYTES // self._row_bytes)
        firsts = np.arange(0, self.num_rows + step, step)
        places = np.searchsorted(rows.numpy(), firsts).tolist()
        for first, start, stop in zip(firsts.tolist(), places, places[1:], strict=False):
            if start == stop:
                continue
            torch.index_select(self._mapped, 0, rows[start:stop], out=gathered[start:stop])
            begin = (self._offset + first * self._row_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
            end = min(self._offset + (first + step) * self._row_bytes, size)
            self._map.madvise(mmap.MADV_DONTNEED, begin, end - begin)
        return gathered


class FileTable:
    """A `Table` whose columns lie in one or several files with a row for each transition.

    Args:
        parts: Files of the same number of rows, and where the columns are in each.
    """

    rows_at_once = FETCH_ROWS

    def __init__(self, parts: Sequence[tuple[PackedRows, Places]]) -> None:
        self._parts = parts

    @property
    def num_rows(self) -> int:
        """Rows N."""
        return self._parts[0][0].num_rows

    def take(self, rows: Tensor) -> Columns:
        """The columns at these rows, (n,) int64 in any order."""
        ascending, order = rows.sort()
        place_of = torch.empty_like(order)
        place_of[order] = torch.arange(len(rows))
        columns: Columns = {}
        for file, places in self._parts:
            matrix = file.gather(ascending).index_select(0, place_of)
            columns |= {name: matrix[:, place] for name, place in places.items()}
        return columns

    def stream(self, rows: int = BLOCK_ROWS) -> Iterator[Columns]:
        """All rows in order, in pieces of so many."""
        for start in range(0, self.num_rows, rows):
            columns: Columns = {}
            for file, places in self._parts:
                matrix = file.read(start, min(start + rows, self.num_rows))
                # As they lie in memory, so that nothing depends on where they came from.
                columns |= {name: matrix[:, place].contiguous() for name, place in places.items()}
            yield columns
