"""What learning asks of a dataset, whether it lies in memory or on disk.

Two classes answer: `OfflineDataset`, which holds its arrays as tensors, and `CachedDataset`, which
reads them from a packed file as they are needed. A learner that uses nothing else works with both
and computes the same, bit for bit: what is summed is summed in the same pieces and order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from safer_offline.datasets.dataset.schema import Metadata

BLOCK_ROWS = 2**18
"""Rows of a block, unless a single episode is longer: some tens of megabytes at usual sizes."""

Columns = dict[str, Tensor]
"""Tensors (n,) or (n, size) by name, with a row for each of the same n transitions."""


class Table(Protocol):
    """Columns of float32 to draw batches from."""

    @property
    def num_rows(self) -> int:
        """Rows N."""
        ...

    @property
    def rows_at_once(self) -> int:
        """How many rows are best asked for in one `take`; it may be fewer or more."""
        ...

    def take(self, rows: Tensor) -> Columns:
        """The columns at these rows, (n,) int64 in any order; a copy."""
        ...

    def stream(self) -> Iterator[Columns]:
        """All rows in order, in pieces of `BLOCK_ROWS`."""
        ...


class Transitions(Protocol):
    """N transitions of whole episodes in memory; see `OfflineDataset` for the arrays."""

    @property
    def observations(self) -> Tensor:
        """(N, observation size)."""
        ...

    @property
    def next_observations(self) -> Tensor:
        """(N, observation size)."""
        ...

    @property
    def actions(self) -> Tensor:
        """(N, action size)."""
        ...

    @property
    def rewards(self) -> Tensor:
        """(N,)."""
        ...

    @property
    def costs(self) -> Tensor:
        """(N,)."""
        ...

    @property
    def terminals(self) -> Tensor:
        """(N,), bool."""
        ...

    @property
    def timeouts(self) -> Tensor:
        """(N,), bool."""
        ...


class TransitionSource(Protocol):
    """A fixed dataset of N transitions in whole episodes; see `OfflineDataset` for the arrays."""

    @property
    def metadata(self) -> Metadata:
        """What is known about how the dataset came about."""
        ...

    @property
    def path(self) -> Path | None:
        """The file that it comes from."""
        ...

    @property
    def num_transitions(self) -> int:
        """N."""
        ...

    @property
    def num_episodes(self) -> int:
        """How many episodes the transitions make up."""
        ...

    @property
    def observation_size(self) -> int:
        """Numbers in one observation."""
        ...

    @property
    def action_size(self) -> int:
        """Numbers in one action."""
        ...

    @property
    def action_low(self) -> Tensor:
        """Lower bounds of the actions, (action size,)."""
        ...

    @property
    def action_high(self) -> Tensor:
        """Upper bounds of the actions, (action size,)."""
        ...

    @property
    def episodes(self) -> pd.DataFrame:
        """One row an episode: start, length, return, cost, terminated; seed, behavior if known."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 of all arrays, the same however the dataset is held."""
        ...

    def blocks(self) -> Iterator[Transitions]:
        """All episodes in order, some at a time: as many as fit into `BLOCK_ROWS`, at least one."""
        ...

    def stream(self, names: Sequence[str], *, rows: int = BLOCK_ROWS) -> Iterator[Columns]:
        """Arrays of float32 in pieces of so many rows, all but the last, whatever the episodes."""
        ...

    def take(self, names: Sequence[str], rows: Tensor) -> Columns:
        """Arrays of float32 at these rows, (n,) int64 in any order."""
        ...

    def table(
        self,
        names: Sequence[str],
        derive: Callable[[Transitions], Mapping[str, Tensor]] | None = None,
    ) -> Table:
        """A table of arrays of float32, and of columns that are computed from the episodes.

        Args:
            names: Arrays of the dataset.
            derive: Computes further columns of float32, (n,), for whole episodes of n rows.
        """
        ...


def cut_episodes(ends: NDArray[np.int64], rows: int = BLOCK_ROWS) -> Iterator[tuple[int, int]]:
    """The blocks of `TransitionSource.blocks`: first episode, and one past the last.

    Args:
        ends: One past the last row of each episode, (E,), ascending.
        rows: The most rows of a block that holds more than one episode.
    """
    first = 0
    while first < len(ends):
        start = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, start + rows, side="right")))
        yield first, last
        first = last
