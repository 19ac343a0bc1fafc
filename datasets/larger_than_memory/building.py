"""Turning a dataset file into packed rows, block by block, with all the checks of loading it."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from safer_offline import files
from safer_offline.datasets.dataset.access import BLOCK_ROWS, cut_episodes
from safer_offline.datasets.dataset.hashing import (
    ArrayHashes,
    file_sha256,
    join_hashes,
    verify_hashes,
)
from safer_offline.datasets.dataset.in_memory import OfflineDataset, as_columns
from safer_offline.datasets.dataset.schema import ARRAYS, FLAG_ARRAYS, INFO_PREFIX, MATRICES
from safer_offline.datasets.dataset.validation import (
    find_problems,
    find_unfinished,
    raise_first_error,
)
from safer_offline.datasets.larger_than_memory.memory import format_size
from safer_offline.datasets.storage.contents import survey
from safer_offline.datasets.storage.diagnosis import explain_reading
from safer_offline.datasets.storage.layouts import find_missing
from safer_offline.datasets.storage.reading import open_file, read_metadata
from safer_offline.errors import DataError
from safer_offline.files import write_atomically
from safer_offline.progress import progress_bar

FORMAT = "safer-offline/cache/1"
ROWS, EPISODES, MANIFEST = "rows.npy", "episodes.npz", "manifest.json"
PACKED = ("observations", "actions", "next_observations", "rewards", "costs")
SCRATCH_BYTES = 8
"""What a training writes beside the rows for each of them: two columns that it computes."""
_RAW = "raw "
"""Prefix of the hashes of arrays as they are stored."""


def identify(path: Path) -> dict[str, int]:
    """What tells a file from an edited one without reading it."""
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


writing = functools.partial(
    files.writing,
    what="the cache",
    remedy="make room, or name a folder on another disk with --cache-dir",
)


def build_cache(path: Path, folder: Path, *, progress: bool = True) -> None:
    """Write the packed rows of a dataset file; the manifest, which makes them valid, comes last.

    Args:
        path: The dataset file.
        folder: Where to; it exists, and nobody else writes there. Leftovers of builds that were
            killed are removed.
        progress: Whether to show a progress bar.

    Raises:
        DataError: If the file is damaged, unsafe to read or breaks the format, or if the disk is
            full.
    """
    with writing(folder):
        (folder / MANIFEST).unlink(missing_ok=True)
        for leftover in (*folder.glob("*.tmp*"), folder / ROWS, folder / EPISODES):
            leftover.unlink(missing_ok=True)
    source = identify(path)
    temporary = folder / f"{ROWS}.tmp"
    try:
        with open_file(path) as file, ArrayHashes() as hashes:
            builder = _Builder(path, file, hashes)
            builder.require_room(folder)
            with writing(folder):
                out = temporary.open("wb")
            with out, progress_bar("cache", total=builder.rows, enabled=progress) as bar:
                for piece in builder.pack():
                    with writing(folder):
                        out.write(piece.data)
                    bar.advance(piece.nbytes / (4 * builder.width))
                with writing(folder):
                    out.flush()
                    os.fsync(out.fileno())
            manifest = builder.manifest()
        if identify(path) != source:
            raise DataError(
                "the file changed while it was read",
                path=path,
                remedy="wait until nobody writes to it, then begin anew",
            )
        with writing(folder):
            temporary.replace(folder / ROWS)
            builder.write_episodes(folder / EPISODES)
            manifest["source"] = source
            manifest["sha256"][EPISODES] = file_sha256(folder / EPISODES)
            content = (json.dumps(manifest, indent=2) + "\n").encode()
            write_atomically(folder / MANIFEST, content)
    finally:
        temporary.unlink(missing_ok=True)


class _Builder:
    """One pass over the arrays of a file, and what is learned on the way."""

    def __init__(self, path: Path, file: h5py.File, hashes: ArrayHashes) -> None:
        self._path = path
        self._hashes = hashes
        self._metadata = read_metadata(file, path=path)
        contents = survey(file, path=path)
        self._stored = contents.arrays
        raise_first_error(find_missing(path, contents), path=path)
        self._require_layout()
        contents.warn(path, stacklevel=4)
        self.rows = int(self._stored["rewards"].shape[0])
        sizes = {name: self._stored[name].shape[1:] for name in PACKED}
        self.width = sum(shape[0] if name in MATRICES else 1 for name, shape in sizes.items())
        self._canonical: dict[str, NDArray[Any]] = {}
        self._table: dict[str, NDArray[Any]] = {}
        self._low = torch.full(sizes["actions"], torch.inf)
        self._high = torch.full(sizes["actions"], -torch.inf)
        self._warned: set[str | None] = set()

    def require_room(self, folder: Path) -> None:
        """Raise unless the disk has room for the cache and what trainings write beside it."""
        needed = self.rows * (4 * self.width + SCRATCH_BYTES)
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise DataError(
                f"the cache takes {needed} bytes ({format_size(needed)}), the disk has "
                f"{format_size(free)} left",
                path=folder,
                remedy="make room, name a folder on another disk with --cache-dir, or allow more "
                "memory with --max-memory",
            )

    def pack(self) -> Iterator[NDArray[Any]]:
        """The contents of the rows' file, in pieces; everything in them is checked."""
        header = io.BytesIO()
        layout = {"descr": "<f4", "fortran_order": False, "shape": (self.rows, self.width)}
        np.lib.format.write_array_header_1_0(header, layout)
        yield self._hashed(ROWS, np.frombuffer(header.getvalue(), np.uint8))
        ends = self._find_ends()
        for first, last in cut_episodes(ends):
            start, stop = int(ends[first - 1]) if first else 0, int(ends[last - 1])
            block = self._read(start, stop)
            self._note_episodes(block.episodes, slice(first, last), start, count=len(ends))
            self._low = torch.minimum(self._low, block.action_low)
            self._high = torch.maximum(self._high, block.action_high)
            columns = [getattr(block, name).reshape(stop - start, -1) for name in PACKED]
            yield self._hashed(ROWS, torch.cat(columns, dim=1).numpy())
            # Nothing is kept of a block that has been absorbed.
            self._hashes.wait()

    def manifest(self) -> dict[str, Any]:
        """What is to be known about the rows; the stored hashes are verified first."""
        hashes = self._hashes.hexdigests()
        raw = {name: hashes[f"{_RAW}{name}"] for name in self._stored}
        verify_hashes(self._stored, raw, self._metadata, path=self._path)
        # The arrays as they would be in memory: of float32 and bool, (N,) in place of (N, 1).
        arrays = {
            name: np.broadcast_to(part[:1], (self.rows, *part.shape[1:]))
            for name, part in self._canonical.items()
        }
        held = {name: hashes.get(name, raw[name]) for name in arrays}
        return {
            "format": FORMAT,
            "shape": [self.rows, self.width],
            "observation_size": arrays["observations"].shape[1],
            "action_size": arrays["actions"].shape[1],
            "action_low": self._low.tolist(),
            "action_high": self._high.tolist(),
            "fingerprint": join_hashes(arrays, held),
            "sha256": {ROWS: hashes[ROWS]},
        }

    def write_episodes(self, path: Path) -> None:
        """Write the table of episodes as arrays, one a column."""
        columns = {
            name: column.astype(np.str_) if column.dtype.kind == "O" else column
            for name, column in self._table.items()
        }
        with path.open("wb") as file:
            np.savez(file, **columns)  # type: ignore[arg-type]
            os.fsync(file.fileno())

    def _note_episodes(self, table: pd.DataFrame, place: slice, start: int, *, count: int) -> None:
        """Keep the table of a block, in arrays made once.

        Something small that is kept of each block would keep the memory of the block's large
        arrays from being given back: it lies behind them.
        """
        for name in table.columns:
            column = table[name].to_numpy()
            if column.dtype.kind not in "iufb":
                column = np.array([sys.intern(text) for text in column], np.object_)
            kept = self._table.setdefault(name, np.empty(count, column.dtype))
            kept[place] = column + start if name == "start" else column

    def _hashed(self, name: str, piece: NDArray[Any]) -> NDArray[Any]:
        self._hashes.update(name, piece)
        return piece

    def _require_layout(self) -> None:
        """Names, lengths and dimensions; everything else shows in the blocks."""
        lengths = {entry.shape[:1] for entry in self._stored.values()}
        flat = [name for name in MATRICES if name in self._stored and self._stored[name].ndim != 2]
        if not flat and len(lengths) == 1 and lengths != {(0,)}:
            return
        empty = {
            name: np.broadcast_to(np.zeros((), entry.dtype), entry.shape)
            for name, entry in self._stored.items()
        }
        raise_first_error(find_problems(empty, self._metadata), path=self._path)

    def _find_ends(self) -> NDArray[np.int64]:
        """One past the last row of each episode."""
        found = []
        for start in range(0, self.rows, BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            flags = [self._read_part(name, part).reshape(-1) != 0 for name in FLAG_ARRAYS]
            found.append(np.flatnonzero(flags[0] | flags[1]) + start + 1)
        ends = np.concatenate(found)
        unfinished = find_unfinished(
            self.rows,
            end=int(ends[-1]) if len(ends) else 0,
            max_episode_steps=self._metadata.max_episode_steps,
        )
        if unfinished is not None:
            raise unfinished.to_error(path=self._path)
        return ends

    def _read(self, start: int, stop: int) -> OfflineDataset:
        """Whole episodes, checked like a dataset of their own."""
        raw = {name: self._read_part(name, slice(start, stop)) for name in self._stored}
        arrays = as_columns(raw)
        self._check(arrays, start)
        for name in FLAG_ARRAYS:
            arrays[name] = arrays[name].astype(np.bool_, copy=False)
        for name, part in raw.items():
            self._hashes.update(f"{_RAW}{name}", part)
            if arrays[name].dtype != part.dtype or arrays[name].ndim != part.ndim:
                self._hashes.update(name, arrays[name])
        self._canonical = {name: array[:1] for name, array in arrays.items()}
        tensors: dict[str, Any] = {
            name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in ARRAYS
        }
        infos = {name: a for name, a in arrays.items() if name not in ARRAYS}
        return OfflineDataset(
            **tensors,
            infos={name.removeprefix(INFO_PREFIX): array for name, array in infos.items()},
            metadata=self._metadata,
        )

    def _read_part(self, name: str, rows: slice) -> NDArray[Any]:
        try:
            return np.asarray(self._stored[name][rows])
        except (OSError, RuntimeError, MemoryError) as error:
            entry = self._stored[name]
            raise explain_reading(self._path, error, field=name, entry=entry) from error

    def _check(self, arrays: Mapping[str, NDArray[Any]], start: int) -> None:
        problems = [
            dataclasses.replace(problem, index=problem.index + start)
            if problem.index is not None
            else problem
            for problem in find_problems(arrays, self._metadata)
        ]
        raise_first_error(problems, path=self._path)
        for problem in problems:
            if problem.field not in self._warned:  # once, not for every block
                self._warned.add(problem.field)
                warnings.warn(str(problem.to_error(path=self._path)), stacklevel=2)
