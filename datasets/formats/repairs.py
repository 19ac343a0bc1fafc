"""What files in the layout of D4RL and DSRL may lack or contradict, and how it is mended.

Nothing is mended unless it was asked for. What was done is said with `warnings.warn` and written
into the description of the dataset.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.datasets.dataset.schema import ARRAYS, FLAG_ARRAYS
from safer_offline.datasets.formats import Fix
from safer_offline.datasets.storage.hdf5 import read_arrays
from safer_offline.datasets.storage.reading import open_file
from safer_offline.errors import DataError, UsageError

Arrays = dict[str, NDArray[Any]]


def parse_fixes(fixes: Iterable[Fix | str]) -> frozenset[Fix]:
    """The fixes of these names.

    Raises:
        UsageError: If there is no fix of a name.
    """
    names = [entry.value for entry in Fix]
    for fix in fixes:
        if fix not in names:
            raise UsageError(f"there is no fix '{fix}'; there are {', '.join(names)}")
    return frozenset(Fix(fix) for fix in fixes)


class FlatFile:
    """The arrays of a file while they are being mended.

    Args:
        path: An HDF5 file with one row per transition in each array.

    Raises:
        DataError: If the file is missing, damaged or unsafe to read, or if its arrays differ in
            length.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.arrays: Arrays
        self.arrays, self.metadata = read_arrays(path)
        self._notes: list[str] = []
        for name in ("observations", "actions", "rewards", "terminals"):
            if name not in self.arrays:
                raise self.error(
                    f"the array is missing (present: {', '.join(sorted(self.arrays)) or 'none'})",
                    field=name,
                    remedy="a dataset needs observations, actions, rewards, costs and terminals, "
                    "one row per transition; check that this is the right file",
                )
        lengths = Counter(len(array) for array in self.arrays.values() if array.ndim)
        rows = lengths.most_common(1)[0][0] if lengths else 0
        for name, array in self.arrays.items():
            if array.ndim == 0 or len(array) != rows:
                raise self.error(
                    f"has shape {array.shape}, most arrays have {rows} rows",
                    field=name,
                    remedy="every array needs one row per transition",
                )
        self._warn_of_strangers()

    def error(
        self, problem: str, *, field: str, remedy: str, index: int | None = None
    ) -> DataError:
        """An error about this file."""
        return DataError(problem, path=self.path, field=field, index=index, remedy=remedy)

    def note(self, text: str) -> None:
        """Remember what was done to the data."""
        self._notes.append(text)

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Drop all rows but these.

        Raises:
            DataError: If none is left.
        """
        if not rows.any():
            raise self.error(
                "no row would be left after the fixes",
                field="timeouts",
                remedy="this file holds no whole episode that could be used",
            )
        self.arrays = {name: array[rows] for name, array in self.arrays.items()}

    def flag(self, name: str) -> NDArray[np.bool_]:
        """(N,) bool: one of the two flags."""
        flags: NDArray[np.bool_] = self.arrays[name] != 0
        return flags

    def require_valid_flags(self) -> None:
        """Check the flags before episodes are read from them.

        Raises:
            DataError: If one is neither 0 nor 1.
        """
        for name in FLAG_ARRAYS:
            flags = self.arrays[name]
            wrong = (flags != 0) & (flags != 1) if flags.ndim == 1 else np.ones(1, np.bool_)
            if wrong.any():
                raise self.error(
                    f"holds {flags[wrong.argmax()]}, a flag is 0 or 1",
                    field=name,
                    index=int(wrong.argmax()),
                    remedy="store one flag a row, as bool",
                )

    def let_terminal_win(self, *, asked: bool) -> None:
        """Clear the timeout of rows with both flags.

        Raises:
            DataError: If there are such rows and the fix was not asked for.
        """
        both = self.flag("terminals") & self.flag("timeouts")
        if not both.any():
            return
        if not asked:
            raise self.error(
                f"both 'terminals' and 'timeouts' are set ({both.sum()} such rows)",
                field="timeouts",
                index=int(both.argmax()),
                remedy="an episode ends one way; --fix terminal-wins clears the timeout there",
            )
        self.arrays["timeouts"] = self.flag("timeouts") & ~both
        self.note(f"the timeout of {count(int(both.sum()), 'row')} that terminate was cleared")

    def drop_tail(self, *, asked: bool) -> None:
        """Drop the rows after the last end of an episode.

        Raises:
            DataError: If there are such rows and the fix was not asked for.
        """
        ends = np.flatnonzero(self.flag("terminals") | self.flag("timeouts"))
        rows = len(self.arrays["rewards"])
        tail = rows - (int(ends[-1]) + 1 if len(ends) else 0)
        if not tail:
            return
        if not asked:
            raise self.error(
                f"the last row ends no episode: {count(tail, 'unfinished row')}",
                field="timeouts",
                index=rows - 1,
                remedy="--fix drop-tail cuts the unfinished rows off",
            )
        self.keep(np.arange(rows) < rows - tail)
        self.note(f"{count(tail, 'row')} of an unfinished episode at the end dropped")

    def to_dataset(self) -> OfflineDataset:
        """The checked dataset; its metadata tell what was done, if anything was.

        Raises:
            DataError: If the arrays break the format.
        """
        metadata = self.metadata
        if self._notes:
            done = "; ".join(self._notes)
            warnings.warn(f"{self.path}: {done}", stacklevel=3)
            sentence = f"Changed on import: {done}."
            parent = metadata.content_sha256
            metadata = dataclasses.replace(
                metadata.without_content(),
                description=f"{metadata.description}\n\n{sentence}".strip(),
                parents=(parent,) if parent else metadata.parents,
            )
        return OfflineDataset.from_arrays(self.arrays, metadata=metadata, path=self.path)

    def _warn_of_strangers(self) -> None:
        with open_file(self.path) as file:
            strangers = sorted(set(file) - set(ARRAYS) - {"infos"})
        if strangers:
            warnings.warn(
                f"{self.path}: not read, because the format has no place for it: "
                f"{', '.join(strangers)}; columns of one value a row belong in 'infos/'",
                stacklevel=4,
            )


def count(number: int, noun: str) -> str:
    """Such as "1 row" or "2 rows"."""
    return f"{number} {noun}{'s' * (number != 1)}"
