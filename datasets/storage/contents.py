"""What is in an open HDF5 file: the arrays of a dataset, and whatever else, none of it trusted."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py

from safer_offline.datasets.dataset.problems import Problem
from safer_offline.datasets.dataset.schema import ARRAYS, INFO_PREFIX
from safer_offline.datasets.dataset.shapes import find_unfit_columns
from safer_offline.datasets.storage.diagnosis import explain_filters, missing_filters
from safer_offline.errors import DataError, UsageError

MAX_COMPRESSION = 1_100
"""Deflate cannot shrink data by more than 1032."""

MAX_ENTRIES = 10_000
"""Groups and arrays that are looked at in a file; more are no dataset."""

_COPY = "a dataset must hold its data itself: copy the array into the file"

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
            warnings.warn(f"{path}: {tell_left_out(self._folded())}", stacklevel=stacklevel + 1)
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


def tell_left_out(reasons: Sequence[tuple[str, str]]) -> str:
    """What is not read and why, as a clause."""
    named = [f"{name} ({reason})" for name, reason in reasons[:NAMED]]
    more = len(reasons) - len(named)
    return f"not read: {', '.join(named)}{f' and {more} more' if more else ''}"


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
    names = names or {}
    entries = dict(walk(file))
    own = _find_own(entries, group)
    sources = own | _find_named(entries, names, group=group, path=path)
    left_out = _describe_rest(entries, own, sources)
    arrays: dict[str, h5py.Dataset] = {}
    for name, where in sources.items():
        entry = entries[where]
        try:
            arrays[name] = _require_safe(entry, name=name, path=path)
        except DataError as error:
            if name in ARRAYS or name in names:
                raise
            left_out[where] = error.problem
    for name, reason in find_unfit_columns(arrays).items():
        left_out[sources[name]] = reason
        del arrays[name]
    unwritten = {name: text for name in arrays if (text := _describe_unwritten(arrays[name]))}
    return Contents(arrays, left_out, unwritten)


def _find_own(entries: Mapping[str, object], group: str) -> dict[str, str]:
    """The arrays and columns that bear our names, and where in the file they are."""
    prefix = _prefix(group)
    places = {where.removeprefix(prefix): where for where in entries if where.startswith(prefix)}
    return {name: where for name, where in places.items() if _is_ours(name)}


def _find_named(
    entries: Mapping[str, object], names: Mapping[str, str], *, group: str, path: Path
) -> dict[str, str]:
    """Where what was asked for under other names is; `infos/` and the group may be left out.

    Raises:
        UsageError: If it is nowhere.
    """
    prefix = _prefix(group)
    sources = {}
    for name, theirs in names.items():
        wanted = theirs.strip("/")
        places = (wanted, prefix + wanted, INFO_PREFIX + wanted, prefix + INFO_PREFIX + wanted)
        found = next((where for where in places if where in entries), None)
        if found is None:
            raise UsageError(
                f"{path} holds no array '{theirs}' to take for '{name}'; it holds "
                f"{', '.join(list(entries)[:20]) or 'none'}"
            )
        sources[name] = found
    return sources


def _describe_rest(
    entries: Mapping[str, object], own: Mapping[str, str], sources: Mapping[str, str]
) -> dict[str, str]:
    """Why each entry is not read that is no array of a dataset."""
    replaced = {where: sources[name] for name, where in own.items() if sources[name] != where}
    reasons = {}
    for where, entry in entries.items():
        if where in sources.values():
            continue
        if isinstance(entry, str):
            reasons[where] = entry
        elif where in replaced:
            reasons[where] = f"'{replaced[where]}' is taken in its place"
        else:
            reasons[where] = "is no array of this format"
    return reasons


def _prefix(group: str) -> str:
    return f"{group.strip('/')}/" if group.strip("/") else ""


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


def _require_safe(entry: h5py.Dataset | str, *, name: str, path: Path) -> h5py.Dataset:
    """Refuse an array that takes its data from elsewhere, or that is larger than what it stores."""
    if isinstance(entry, str):
        raise DataError(entry, path=path, field=name, remedy=_COPY)
    try:
        numbers = entry.dtype.kind in "fiub"
        text = entry.dtype.kind == "S" or h5py.check_string_dtype(entry.dtype) is not None
    except TypeError:  # a type that NumPy does not have
        numbers = text = False
    if not numbers or entry.shape is None:
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
            remedy=_COPY,
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
    return entry


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
