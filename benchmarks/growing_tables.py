"""Tables that grow row by row, so that a study may be stopped at any moment and gone on with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from safer_offline.cli.arithmetic import KERNELS, choose_kernels

Entry = TypeVar("Entry")


def rows_so_far(results: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Rows of earlier calls."""
    return pd.read_csv(results) if results.exists() else pd.DataFrame(columns=columns)


def waiting(
    results: Path,
    columns: Sequence[str],
    entries: Iterator[Entry],
    *,
    kind: Callable[..., Entry],
    key: Sequence[str],
) -> list[Entry]:
    """Entries without rows so far.

    Args:
        results: The table.
        columns: Of the table.
        entries: All there shall be.
        kind: Makes an entry of the values in the columns `key`.
        key: See there.
    """
    table = rows_so_far(results, columns)
    finished = {kind(*values) for values in table[list(key)].itertuples(index=False, name=None)}
    return [entry for entry in entries if entry not in finished]


def grow(
    results: Path,
    columns: Sequence[str],
    run: Callable[..., pd.DataFrame],
    jobs: Mapping[Entry, Sequence[Any]],
) -> Iterator[tuple[Entry, pd.DataFrame]]:
    """Run jobs on all cores and append their rows to a table as they come.

    Args:
        results: The table.
        columns: Of the table.
        run: Makes the rows of an entry; a function of the module that is run.
        jobs: Arguments of `run` for each entry.

    Yields:
        Each entry, once its rows are written, and these.
    """
    choose_kernels(KERNELS)  # these processes have them still to import
    table = rows_so_far(results, columns)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        entries = {pool.submit(run, *arguments): entry for entry, arguments in jobs.items()}
        for job in as_completed(entries):
            table = pd.concat([table, job.result()], ignore_index=True)
            table.to_csv(results, index=False)
            yield entries[job], job.result()
