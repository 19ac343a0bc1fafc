"""A dataset that is larger than memory: packed rows beside its file, checked before they are used.

The cache of `data.h5` is the folder `data.h5.cache`: the rows of all transitions in one array
(`rows.npy`, which NumPy can open), a table of the episodes, and a manifest that names the file it
was made from and the hashes of both. It may be deleted at any time; what does not fit together is
made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from safer_offline.datasets.dataset.access import (
    BLOCK_ROWS,
    Columns,
    Transitions,
    TransitionSource,
    cut_episodes,
)
from safer_offline.datasets.dataset.hashing import file_sha256
from safer_offline.datasets.dataset.in_memory import OfflineDataset
from safer_offline.datasets.dataset.schema import MATRICES, Metadata
from safer_offline.datasets.larger_than_memory.building import (
    EPISODES,
    FORMAT,
    MANIFEST,
    PACKED,
    ROWS,
    build_cache,
    identify,
    writing,
)
from safer_offline.datasets.larger_than_memory.memory import plan_memory
from safer_offline.datasets.larger_than_memory.packed import FileTable, PackedRows, Places
from safer_offline.datasets.storage.hdf5 import peek_metadata, read_file
from safer_offline.errors import UsageError
from safer_offline.locking import locked


def open_for_training(
    path: str | Path,
    *,
    max_memory: int | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = True,
    tell: Callable[[str], object] | None = None,
) -> TransitionSource:
    """A dataset to learn from: in memory where it fits, else from a cache on disk.

    Args:
        path: The dataset file.
        max_memory: Bytes that it may take; None for half of what the process can have.
        cache_dir: Folder for the cache; None for one beside the file.
        progress: Whether to show a progress bar while a cache is built.
        tell: Called with a sentence that says which way was taken, and why.

    Raises:
        DataError: If the file is missing, damaged, unsafe to read or breaks the format, or if
            the cache cannot be written.
        UsageError: If the place of the cache is taken by something else.
    """
    plan = plan_memory(path, max_memory)
    if tell is not None:
        tell(str(plan) if plan.fits else f"{plan}; the cache is {cache_folder(path, cache_dir)}")
    if plan.fits:
        return read_file(path)
    return open_cached(path, cache_dir=cache_dir, progress=progress)


def open_cached(
    path: str | Path, *, cache_dir: str | Path | None = None, progress: bool = True
) -> CachedDataset:
    """The dataset in a file, read from its cache; that is built first where there is none.

    See `open_for_training` for arguments and errors.
    """
    path = Path(path)
    metadata = peek_metadata(path)
    folder = cache_folder(path, cache_dir)
    _require_ours(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if (folder / MANIFEST).exists():
            try:
                return CachedDataset(path, folder, metadata, manifest=_verify(path, folder))
            except _UnusableError as reason:
                warnings.warn(f"{folder}: {reason}; the cache is built anew", stacklevel=2)
        build_cache(path, folder, progress=progress)
        return CachedDataset(path, folder, metadata, manifest=_read_manifest(folder))


def cache_folder(path: str | Path, cache_dir: str | Path | None = None) -> Path:
    """Where the cache of a dataset file is."""
    path = Path(path)
    if cache_dir is None:
        return path.with_name(f"{path.name}.cache")
    # Files of one name in different folders must not share a cache.
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    return Path(cache_dir) / f"{path.name}-{place}.cache"


class CachedDataset:
    """A dataset whose rows stay on disk; made by `open_cached`. See `TransitionSource`.

    Args:
        path: The dataset file.
        folder: Its cache, which is valid.
        metadata: What the file says about itself.
        manifest: What the cache does.
    """

    def __init__(
        self, path: Path, folder: Path, metadata: Metadata, *, manifest: Mapping[str, Any]
    ) -> None:
        self.path: Path | None = path
        self.metadata = metadata
        self.num_transitions: int
        self.num_transitions, width = manifest["shape"]
        self.observation_size: int = manifest["observation_size"]
        self.action_size: int = manifest["action_size"]
        self.action_low = torch.tensor(manifest["action_low"])
        self.action_high = torch.tensor(manifest["action_high"])
        self._fingerprint: str = manifest["fingerprint"]
        self._folder = folder
        with np.load(folder / EPISODES, allow_pickle=False) as columns:
            table = {name: columns[name] for name in columns.files}
        if "behavior" in table:
            table["behavior"] = table["behavior"].tolist()
        self.episodes = pd.DataFrame(table)
        self.episodes.index.name = "episode"
        file = (folder / ROWS).open("rb")
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        self._rows = PackedRows(
            file,
            path=folder / ROWS,
            shape=(self.num_transitions, width),
            offset=file.tell(),
        )

    @property
    def num_episodes(self) -> int:
        """How many episodes the transitions make up."""
        return len(self.episodes)

    def fingerprint(self) -> str:
        """SHA-256 of all arrays, as it was when the cache was built."""
        return self._fingerprint

    def blocks(self) -> Iterator[OfflineDataset]:
        """The episodes in order, some at a time, in memory; without `infos`."""
        starts = self.episodes["start"].to_numpy()
        ends = starts + self.episodes["length"].to_numpy()
        terminated = self.episodes["terminated"].to_numpy()
        for first, last in cut_episodes(ends):
            start, stop = int(starts[first]), int(ends[last - 1])
            matrix = self._rows.read(start, stop)
            columns: dict[str, Any] = {
                name: matrix[:, place].contiguous() for name, place in self._places(PACKED).items()
            }
            flags = torch.zeros(2, stop - start, dtype=torch.bool)
            done = torch.from_numpy(terminated[first:last].astype(np.int64))
            flags[1 - done, torch.from_numpy(ends[first:last] - 1 - start)] = True
            yield OfflineDataset(
                **columns,
                terminals=flags[0],
                timeouts=flags[1],
                metadata=self.metadata,
                path=self.path,
            )

    def stream(self, names: Sequence[str], *, rows: int = BLOCK_ROWS) -> Iterator[Columns]:
        """Arrays of float32 in pieces of so many rows."""
        return self.table(names).stream(rows)

    def take(self, names: Sequence[str], rows: Tensor) -> Columns:
        """Arrays of float32 at these rows, (n,) int64 in any order."""
        return self.table(names).take(rows)

    def table(
        self,
        names: Sequence[str],
        derive: Callable[[Transitions], Mapping[str, Tensor]] | None = None,
    ) -> FileTable:
        """A table to draw batches from; derived columns go to a file without a name."""
        parts = [(self._rows, self._places(names))]
        if derive is not None:
            parts.append(self._derive(derive))
        return FileTable(parts)

    def _places(self, names: Sequence[str]) -> Places:
        sizes = {"actions": self.action_size, "rewards": 1, "costs": 1}
        places: dict[str, int | slice] = {}
        position = 0
        for name in PACKED:
            size = sizes.get(name, self.observation_size)
            places[name] = slice(position, position + size) if name in MATRICES else position
            position += size
        return {name: places[name] for name in names}

    def _derive(
        self, derive: Callable[[Transitions], Mapping[str, Tensor]]
    ) -> tuple[PackedRows, Places]:
        places: Places = {}
        with writing(self._folder):
            # It has no name, and is gone with the process however that ends.
            scratch = tempfile.TemporaryFile(  # noqa: SIM115 - it is the table's
                dir=self._folder, prefix=f"{ROWS}.tmp"
            )
        for block in self.blocks():
            columns = derive(block)
            places = {name: place for place, name in enumerate(columns)}
            packed = torch.stack(list(columns.values()), dim=1)
            with writing(self._folder):
                scratch.write(packed.numpy().data)
        with writing(self._folder):
            scratch.flush()
        shape = (self.num_transitions, len(places))
        return PackedRows(scratch, path=self._folder / "scratch", shape=shape), places


class _UnusableError(Exception):
    """Why a cache must not be used."""


def _verify(path: Path, folder: Path) -> dict[str, Any]:
    """The manifest of a cache, if everything in it belongs together and to the file."""
    manifest = _read_manifest(folder)
    if manifest.get("format") != FORMAT:
        raise _UnusableError("it is of another version")
    if manifest.get("source") != identify(path):
        raise _UnusableError(f"{path.name} has changed since")
    for name in (ROWS, EPISODES):
        if not (folder / name).is_file():
            raise _UnusableError(f"{name} is missing")
        if file_sha256(folder / name) != manifest.get("sha256", {}).get(name):
            raise _UnusableError(f"{name} is damaged (its SHA-256 differs)")
    return manifest


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _UnusableError(f"{MANIFEST} cannot be read ({error})") from error
    if not isinstance(manifest, dict):
        raise _UnusableError(f"{MANIFEST} cannot be read")
    return manifest


def _require_ours(folder: Path) -> None:
    """Nothing but a cache may be in the place of one: what is there will be overwritten."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is no folder; name one for the cache with --cache-dir")
    known = {ROWS, EPISODES, MANIFEST}
    for entry in folder.iterdir() if folder.exists() else ():
        if entry.name not in known and not entry.name.startswith(tuple(f"{n}.tmp" for n in known)):
            raise UsageError(
                f"{folder} holds {entry.name}, which is no part of a cache; move it away, or name "
                "another folder with --cache-dir"
            )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time checks or builds a cache; the others wait for it."""
    with locked(folder) as free:
        if free:
            yield
            return
    warnings.warn(f"{folder}: another process builds or checks this cache; waiting", stacklevel=4)
    with locked(folder, wait=True):
        yield
