"""What files in the layout of D4RL and DSRL may lack or contradict, and how it is mended.

Nothing is mended unless it was asked for. What was done is said with `warnings.warn` and written
into the description of the dataset.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safer_offline.datasets.dataset.in_memory import OfflineDataset, as_columns
from safer_offline.datasets.dataset.schema import ARRAYS, FLAG_ARRAYS, INFO_PREFIX
from safer_offline.datasets.dataset.shapes import count_rows, find_transposed
from safer_offline.datasets.dataset.validation import find_unfinished, raise_first_error
from safer_offline.datasets.formats import Fix
from safer_offline.datasets.storage.hdf5 import read_arrays
from safer_offline.datasets.storage.layouts import find_missing
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


def require_names(names: Mapping[str, str]) -> None:
    """Check what is on the left of `--map ARRAY=NAME`.

    Raises:
        UsageError: If it is none of our arrays.
    """
    for name in names:
        if name not in ARRAYS and not name.startswith(INFO_PREFIX):
            raise UsageError(
                f"--map: '{name}' is no array of ours; there are {', '.join(ARRAYS)} and "
                f"{INFO_PREFIX}NAME"
            )


class FlatFile:
    """The arrays of a file while they are being mended.

    Args:
        path: An HDF5 file with one row per transition in each array.
        group: The group that the arrays lie in; empty for the root.
        names: For arrays that have other names in the file: ours, and the path there.
        transpose: Whether arrays whose rows and columns are swapped are turned round.

    Raises:
        DataError: If the file is missing, damaged or unsafe to read, if it lacks an array that
            cannot be supplied, or if its arrays differ in length.
        UsageError: If there is nothing under one of `names`.
    """

    def __init__(
        self,
        path: Path,
        *,
        group: str = "",
        names: Mapping[str, str] | None = None,
        transpose: bool = False,
    ) -> None:
        self.path = path
        self.names = dict(names or {})
        self._prefix = f"{group.strip('/')}/" if group.strip("/") else ""
        self.arrays: Arrays
        require_names(self.names)
        self.arrays, self.metadata, self.contents = read_arrays(path, group=group, names=names)
        self._notes: list[str] = []
        self._limit: int | None = None
        needed = ("observations", "actions", "rewards", "terminals")
        raise_first_error(find_missing(path, self.contents, needed=needed), path=path)
        if group:
            self.note(f"arrays taken from the group '{group}'")
        for name, theirs in self.names.items():
            if name != "costs":  # see `add_costs` of D4RL
                self.note(f"'{name}' taken from '{theirs}'")
        self._turn_round(asked=transpose)
        rows = count_rows(self._shapes())
        for name, array in self.arrays.items():
            if array.ndim == 0 or len(array) != rows:
                raise self.error(
                    f"has shape {array.shape}, most arrays have {rows} rows",
                    field=name,
                    remedy="every array needs one row per transition",
                )
        self.contents.warn(path, stacklevel=4)

    def error(
        self, problem: str, *, field: str, remedy: str, index: int | None = None
    ) -> DataError:
        """An error about this file."""
        return DataError(problem, path=self.path, field=field, index=index, remedy=remedy)

    def holds(self, name: str) -> bool:
        """Whether the file has an array of this name itself, read or replaced by another."""
        read = name in self.arrays and name not in self.names
        return read or self._prefix + name in self.contents.left_out

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

    def add_timeouts(self, max_episode_steps: int | None, *, done_from: str | None = None) -> None:
        """Set the timeouts that follow from a step limit, where the file has none.

        Args:
            max_episode_steps: After how many steps an episode was cut; noted in the metadata, too.
            done_from: Where `terminals` came from if that marks every end, cut or not.

        Raises:
            UsageError: If the limit contradicts the file.
            DataError: If where episodes were cut is unknown.
        """
        known = self.metadata.max_episode_steps
        if max_episode_steps is not None:
            if max_episode_steps < 1:
                raise UsageError("--max-episode-steps must be 1 or more")
            if known not in (None, max_episode_steps):
                raise UsageError(
                    f"{self.path} says that episodes have at most {known} steps; leave "
                    "--max-episode-steps out"
                )
            self.metadata = dataclasses.replace(self.metadata, max_episode_steps=max_episode_steps)
        ends = self.flag("terminals")
        if "timeouts" in self.arrays and (max_episode_steps is None or self.flag("timeouts").any()):
            if done_from is not None:
                self.arrays["terminals"] = ends & ~self.flag("timeouts")
            return
        if max_episode_steps is None:
            raise self.error(
                "the array is missing, so where episodes were cut is unknown",
                field="timeouts",
                remedy="--max-episode-steps N says after how many steps the environment cut them "
                "(more than any episode has, if it cut none)",
            )
        self._limit = max_episode_steps
        rows = np.arange(len(ends))
        # The first row after the last end, at or before each row.
        after = np.concatenate([[0], np.where(ends, rows + 1, 0)[:-1]])
        steps = rows - np.maximum.accumulate(after)
        at_limit = steps % max_episode_steps == max_episode_steps - 1
        timeouts = at_limit & ~ends
        if done_from is not None:
            if timeouts.any():
                row = int(timeouts.argmax())
                raise self.error(
                    f"an episode goes on after {max_episode_steps} steps, which "
                    "--max-episode-steps says are the most",
                    field=done_from,
                    index=row,
                    remedy="give the limit of the environment",
                )
            timeouts = at_limit & ends
            self.arrays["terminals"] = ends & ~timeouts
        self.arrays["timeouts"] = timeouts
        self.note(
            f"{count(int(timeouts.sum()), 'timeout')} set by the limit of {max_episode_steps} steps"
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
        end = int(ends[-1]) + 1 if len(ends) else 0
        tail = rows - end
        if not tail:
            return
        if not end and self._limit is not None:
            raise self.error(
                f"no row ends an episode, and none of the {rows} is the {self._limit}th of one",
                field="timeouts",
                index=rows - 1,
                remedy="the environment's step limit must be smaller, or this is one unfinished "
                "episode, of which nothing can be used",
            )
        unfinished = find_unfinished(
            rows, end=end, max_episode_steps=self.metadata.max_episode_steps
        )
        if unfinished is not None and not end:  # dropping all would be no help
            raise unfinished.to_error(path=self.path)
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

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: array.shape for name, array in self.arrays.items() if name in ARRAYS}

    def _turn_round(self, *, asked: bool) -> None:
        """Swap rows and columns back where they are swapped.

        Raises:
            DataError: If they are and the fix was not asked for.
        """
        transposed = find_transposed(self._shapes())
        if not transposed:
            return
        name = transposed[0]
        if not asked:
            raise self.error(
                f"has shape {self.arrays[name].shape}: rows and columns are swapped, as MATLAB "
                "writes them",
                field=name,
                remedy="--fix transpose turns such arrays round",
            )
        rows = count_rows(self._shapes())
        turned = [
            name
            for name, array in self.arrays.items()
            if array.ndim == 2 and len(array) != rows and array.shape[1] == rows
        ]
        self.arrays |= {name: np.ascontiguousarray(self.arrays[name].T) for name in turned}
        self.arrays = as_columns(self.arrays)
        self.note(f"rows and columns of {count(len(turned), 'array')} swapped")


def count(number: int, noun: str) -> str:
    """Such as "1 row" or "2 rows"."""
    return f"{number} {noun}{'s' * (number != 1)}"
