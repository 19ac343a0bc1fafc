"""How much memory there is, how much a training takes, and sizes as text."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from safer_offline.datasets.storage.contents import survey
from safer_offline.datasets.storage.reading import open_file
from safer_offline.errors import UsageError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY_UNITS = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SIZE = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*([kmgt]?)(i?)(b?)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class MemoryPlan:
    """Whether a dataset is trained on in memory.

    Attributes:
        needed: Bytes that training in memory takes, about.
        allowed: Bytes that it may take.
    """

    needed: int
    allowed: int

    @property
    def fits(self) -> bool:
        """Whether it may."""
        return self.needed <= self.allowed

    def __str__(self) -> str:
        way = "it is held in memory" if self.fits else "it is read from a cache on disk"
        return (
            f"Training takes about {format_size(self.needed)} of memory for the dataset, "
            f"{format_size(self.allowed)} may be used: {way}"
        )


def plan_memory(path: str | Path, max_memory: int | None = None) -> MemoryPlan:
    """Whether the dataset in a file is trained on in memory; no array is read.

    Args:
        path: The dataset file.
        max_memory: Bytes that the dataset may take; None for half of what the process can have.

    Raises:
        DataError: If the file is missing, damaged or unsafe to read.
    """
    path = Path(path)
    with open_file(path) as file:
        arrays = survey(file, path=path).arrays
        stored = sum(entry.nbytes for entry in arrays.values())
        rows = max((entry.shape[0] for entry in arrays.values() if entry.shape), default=0)
        names = ("observations", "actions", "next_observations")
        widths = [arrays[n].shape[1] for n in names if n in arrays and arrays[n].ndim == 2]
    # The arrays, packed copies to draw the batches of both stages from, and cumulative weights.
    table = 4 * (sum(widths) + 3) + 4 * sum(widths[:2]) + 8
    allowed = available_memory() // 2 if max_memory is None else max_memory
    return MemoryPlan(needed=stored + rows * table, allowed=allowed)


def parse_size(text: str) -> int:
    """Bytes of a size such as `4GiB`, `500MB`, `1.5 G` or `1000000`.

    Raises:
        UsageError: If it is none.
    """
    match = _SIZE.fullmatch(text)
    unit = match[2].lower() if match else ""
    if not match or (match[3] and not unit):
        raise UsageError(f"'{text}' is no size in memory; write it like 4GiB or 500MB")
    size = int(float(match[1]) * (_BINARY_UNITS if match[3] else _UNITS)[unit])
    if size < 1:
        raise UsageError(f"a size in memory must be positive, not {text}")
    return size


def format_size(size: float) -> str:
    """A number of bytes for people: `1.6 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} B" if unit == "B" else f"{size:.3g} {unit}"


def available_memory() -> int:
    """Bytes that this process could still take without swapping, within its control groups."""
    available = _machine_memory()
    for limit, usage in _group_memory(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")):
        available = min(available, max(limit - usage, 0))
    return available


def _machine_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # no Linux: all that is installed
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    sizes = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
    return 1024 * sizes.get("MemAvailable", sizes["MemTotal"])


def _group_memory(membership: Path, root: Path) -> list[tuple[int, int]]:
    """Limit and usage in bytes of every control group that limits the process, if any does."""
    found = []
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, files = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = base / path.lstrip("/")
        # Within a container the path may be one of the host, of which only the root is mounted.
        for folder in {base, *(f for f in (group, *group.parents) if f.is_relative_to(base))}:
            try:
                limit, usage = (int((folder / name).read_text()) for name in files[:2])
            except (OSError, ValueError):  # not there, or "max"
                continue
            found.append((limit, usage - _reclaimable(folder / "memory.stat", files[2])))
    return found


def _reclaimable(stat: Path, name: str) -> int:
    """Pages of files that nobody has used for a while: counted as usage, given back on demand."""
    try:
        entries = dict(line.split() for line in stat.read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(entries.get(name, 0))
