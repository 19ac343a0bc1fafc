"""What is in an open HDF5 file: the arrays of a dataset, and whatever else, none of it trusted."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h5py

from safer_offline.datasets.dataset.problems import Problem
from safer_offline.datasets.dataset.schema import ARRAYS, IDENTIFIERS, INFO_PREFIX
from safer_offline.datasets.dataset.shapes import count_rows, find_transposed
from safer_offline.datasets.storage.diagnosis import explain_filters, missing_filters
from safer_offline.errors import DataError, UsageError

MAX_COMPRESSION = 1_100
"""Deflate cannot shrink data by more than 1032."""

MAX_ENTRIES = 10_000
"""Groups and arrays that are looked at in a file; more are no dataset."""

NAMED = 8
"""Things that a sentence names before it counts the others."""


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
        arrays: The arrays of the format and the columns `infos/...`, by name. None of them leads
            out of the file or lies about its size.
        left_out: Everything else by its path, and why it is not read.
        unwritten: Those of the arrays that were never written, or not in full, in words.
    """

    arrays: Mapping[str, h5py.Dataset]
    left_out: Mapping[str, str] = field(default_factory=dict)
    unwritten: Mapping[str, str] = field(default_factory=dict)

    def problems(self) -> list[Problem]:
        """A warning for all that is left out or was not written."""
        return [
            Problem(
                field=name,
                problem=f"{reason}, and was not read",
                remedy=f"a column of one number or vector a row belongs in '{INFO_PREFIX}', all "
                "else in attributes",
                severity="warning",
            )
            for name, reason in self._folded()
        ] + [
            Problem(
                field=name,
                problem=reason,
                remedy="that is in order if it is what you meant; else the recording broke off",
                severity="warning",
            )
            for name, reason in self.unwritten.items()
        ]

    def warn(self, path: Path, *, stacklevel: int) -> None:
        """Say what is left out or was not written with `warnings.warn`."""
        if self.left_out:
            folded = self._folded()
            named = [f"{name} ({reason})" for name, reason in folded[:NAMED]]
            more = len(folded) - len(named)
            warnings.warn(
                f"{path}: not read: {', '.join(named)}{f' and {more} more' if more else ''}",
                stacklevel=stacklevel + 1,
            )
        for name, reason in self.unwritten.items():
            warnings.warn(f"{path}, '{name}': {reason}", stacklevel=stacklevel + 1)

    def _folded(self) -> list[tuple[str, str]]:
        """What is left out and why; of a group with many arrays, the group."""
        by_group: dict[tuple[str, str], list[str]] = {}
        for name, reason in self.left_out.items():
            by_group.setdefault((name.rpartition("/")[0], reason), []).append(name)
        folded = []
        for (group, reason), names in by_group.items():
            if group and len(names) > 3:
                folded.append((f"{group}/", f"{reason} ({len(names)} of them)"))
            else:
                folded += [(name, reason) for name in names]
        return folded


def survey(
    file: h5py.File, *, path: Path, group: str = "", names: Mapping[str, str] | None = None
) -> Contents:
    """Find the arrays of a dataset in a file.

    What the format needs must be sound; a column that nobody needs is left out where it is not.

    Args:
        file: Open for reading.
        path: Its path, for messages.
        group: The group that the arrays lie in; empty for the root.
        names: For arrays that have other names in the file: ours, and the path there.

    Raises:
        DataError: If an array of the format holds no real numbers, takes its data from elsewhere,
            declares more than the file can hold, or is compressed in an unknown way.
        UsageError: If there is nothing under one of `names`.
    """
    entries = dict(walk(file))
    prefix = f"{group.strip('/')}/" if group.strip("/") else ""
    sources = {where.removeprefix(prefix): where for where in entries if where.startswith(prefix)}
    sources = {name: where for name, where in sources.items() if _is_ours(name)}
    own = dict(sources)
    for name, theirs in (names or {}).items():
        wanted = theirs.strip("/")
        places = (wanted, prefix + wanted, INFO_PREFIX + wanted, prefix + INFO_PREFIX + wanted)
        found = next((where for where in places if where in entries), None)
        if found is None:
            raise UsageError(
                f"{path} holds no array '{theirs}' to take for '{name}'; it holds "
                f"{', '.join(list(entries)[:20]) or 'none'}"
            )
        sources[name] = found
    arrays: dict[str, h5py.Dataset] = {}
    replaced = {where: sources[name] for name, where in own.items() if sources[name] != where}
    left_out = {
        where: entry
        if isinstance(entry, str)
        else f"'{replaced[where]}' is taken in its place"
        if where in replaced
        else "is no array of this format"
        for where, entry in entries.items()
        if where not in sources.values()
    }
    for name, where in sources.items():
        entry = entries[where]
        needed = name in ARRAYS or name in (names or {})
        if isinstance(entry, str):
            flaw: str | None = entry
        else:
            flaw = _find_flaw(entry, name=name, path=path, needed=needed)
            if flaw is None:
                arrays[name] = entry
        if flaw is not None:
            if needed:
                raise DataError(
                    flaw,
                    path=path,
                    field=name,
                    remedy="a dataset must hold its data itself: copy the array into the file",
                )
            left_out[where] = flaw
    left_out |= _drop_unfit_columns(arrays)
    unwritten = {name: text for name in arrays if (text := _describe_unwritten(arrays[name]))}
    return Contents(arrays, left_out, unwritten)


def _is_ours(name: str) -> bool:
    return name in ARRAYS or name == "infos" or name.startswith(INFO_PREFIX)


def walk(group: h5py.Group, prefix: str = "") -> Iterator[tuple[str, h5py.Dataset | str]]:
    """All arrays below a group by their paths, in order; for what cannot be entered, the reason.

    Links out of the file are never followed, and no group is entered twice.
    """
    seen = {h5py.h5o.get_info(group.id).addr}
    pending = [(prefix, group)]
    count = 0
    while pending:
        prefix, group = pending.pop()
        below = []
        for key in group:
            where = f"{prefix}{key}"
            count += 1
            if count > MAX_ENTRIES:
                yield where, f"comes after {MAX_ENTRIES:,} other entries"
                return
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                yield where, "is a link to somewhere else"
                continue
            entry = group[key]
            if isinstance(entry, h5py.Dataset):
                yield where, entry
            elif isinstance(entry, h5py.Group):
                address = h5py.h5o.get_info(entry.id).addr
                if address in seen:
                    yield where, "is a group that occurs elsewhere, too"
                else:
                    seen.add(address)
                    below.append((f"{where}/", entry))
        pending += reversed(below)


def _require_safe(entry: h5py.Dataset, *, name: str, path: Path) -> None:
    """Refuse an array that takes its data from elsewhere, or that is larger than what it stores."""
    try:
        kind = entry.dtype.kind
        text = kind == "S" or h5py.check_string_dtype(entry.dtype) is not None
    except TypeError:  # a type that NumPy does not have
        kind, text = "?", False
    if kind not in "fiub" or entry.shape is None:
        raise DataError(
            "holds text" if text else "holds something else than real numbers",
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
    # What was never written takes no room, and every reader gets the fill value. So that a small
    # file cannot order a huge allocation, it may be as large as if the whole file held it.
    basis = stored if _share_written(entry) == 1 else max(stored, path.stat().st_size)
    if declared > MAX_COMPRESSION * basis:
        raise DataError(
            f"declares {declared / 1e9:.3g} GB, the file stores {stored} bytes for it",
            path=path,
            field=name,
            remedy="no program that records data writes such a file. If you trust it, rewrite it "
            f"without compression: `h5repack -f NONE {path} NEW.h5`",
        )
    if missing := missing_filters(entry):
        raise explain_filters(path, missing, field=name)


def _find_flaw(entry: h5py.Dataset, *, name: str, path: Path, needed: bool) -> str | None:
    """Why a column is left out that nobody needs; what is needed is refused instead."""
    try:
        _require_safe(entry, name=name, path=path)
    except DataError as error:
        if needed:
            raise
        return error.problem
    if name == "infos":
        return "is one array, not a group of columns"
    if entry.ndim == 0 and not needed:
        return "is a single number"
    if name in IDENTIFIERS and (entry.dtype.kind not in "iu" or math.prod(entry.shape[1:]) != 1):
        return "is not one whole number a row"
    return None


def _drop_unfit_columns(arrays: dict[str, h5py.Dataset]) -> dict[str, str]:
    """Take out the columns that have not one row a transition; why, by name.

    Where the arrays themselves are transposed, so may the columns be.
    """
    shapes = {name: entry.shape for name, entry in arrays.items() if name in ARRAYS}
    rows = count_rows(shapes)
    transposed = bool(find_transposed(shapes))
    unfit = {}
    for name, entry in list(arrays.items()):
        fits = entry.shape[:1] == (rows,) or (transposed and entry.shape[-1:] == (rows,))
        if name not in ARRAYS and rows is not None and not fits:
            unfit[name] = f"has shape {entry.shape} instead of {rows} rows"
            del arrays[name]
    return unfit


def _share_written(entry: h5py.Dataset) -> float:
    """The share of an array that was ever written, as far as HDF5 knows."""
    status = entry.id.get_space_status()
    if status == h5py.h5d.SPACE_STATUS_ALLOCATED or not entry.size:
        return 1.0
    if status == h5py.h5d.SPACE_STATUS_NOT_ALLOCATED or not entry.chunks:
        return 0.0
    chunks = math.prod(
        -(-size // chunk) for size, chunk in zip(entry.shape, entry.chunks, strict=True)
    )
    written = int(entry.id.get_num_chunks())
    return float(min(1.0, written / chunks))


def _describe_unwritten(entry: h5py.Dataset) -> str | None:
    share = _share_written(entry)
    if share == 1:
        return None
    filled = f"{entry.fillvalue:g}" if entry.dtype.kind != "b" else str(bool(entry.fillvalue))
    if share == 0:
        return f"was created, but never written: every value is {filled}"
    return f"was written in part: {1 - share:.0%} of it never was, and reads as {filled}"
