"""What a row of an episode has to do with the rest of it: totals, what is to come, what follows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from safer_offline.datasets.dataset.access import BLOCK_ROWS, Columns, Table


class SequenceTable:
    """A `Table` of sequences: row i of it is rows i, ..., i + K - 1 of another one.

    Sequences may run past the end of their episode; what is there tells a column such as
    `steps_since_start`. Past the end of the data they repeat the last row.

    Args:
        table: The rows.
        length: Steps K of a sequence.
    """

    def __init__(self, table: Table, length: int) -> None:
        self._table = table
        self._steps = torch.arange(length)

    @property
    def num_rows(self) -> int:
        """Sequences N: one begins at each row."""
        return self._table.num_rows

    @property
    def rows_at_once(self) -> int:
        """See `Table`."""
        return max(1, self._table.rows_at_once // len(self._steps))

    def take(self, rows: Tensor) -> Columns:
        """Columns (n, K) or (n, K, size) of the sequences that begin at these rows, (n,) int64."""
        wanted = (rows[:, None] + self._steps).clamp_(max=self.num_rows - 1)
        columns = self._table.take(wanted.flatten())
        return {
            name: values.view(*wanted.shape, *values.shape[1:]) for name, values in columns.items()
        }

    def stream(self) -> Iterator[Columns]:
        """All sequences in order, in pieces that hold about `BLOCK_ROWS` rows."""
        at_once = max(1, BLOCK_ROWS // len(self._steps))
        for rows in torch.split(torch.arange(self.num_rows), at_once):
            yield self.take(rows)


def steps_since_start(ends: Tensor) -> Tensor:
    """Steps since the episode began, for each of N rows of whole episodes, (N,) float32.

    Args:
        ends: True in the last row of each episode, shape (N,); the last row is one.
    """
    return still_to_come(torch.ones(len(ends)), ends).neg() + episode_totals(
        torch.ones(len(ends)), ends
    )


def episode_totals(values: Tensor, ends: Tensor) -> Tensor:
    """The sum over its whole episode, for each of N rows of whole episodes, (N,) float32.

    Args:
        values: Numbers to add up, shape (N,).
        ends: True in the last row of each episode, shape (N,); the last row is one.
    """
    totals, lengths = _totals(values, ends)
    return totals.repeat_interleave(lengths).float()


def still_to_come(values: Tensor, ends: Tensor) -> Tensor:
    """The sum from each row to the end of its episode, this row included, (N,) float32.

    See `episode_totals` for the arguments.
    """
    totals, lengths = _totals(values, ends)
    # In float64 the sums over many episodes are exact enough to take differences of.
    before = values.double().cumsum(0) - values.double()
    starts = lengths.cumsum(0) - lengths
    within = before - before[starts].repeat_interleave(lengths)
    return (totals.repeat_interleave(lengths) - within).float()


def _totals(values: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Sums (E,), float64, and lengths (E,) of the episodes."""
    last = ends.nonzero()[:, 0]
    lengths = torch.diff(last, prepend=torch.tensor([-1]))
    cumulative = values.double().cumsum(0)[last]
    return torch.diff(cumulative, prepend=torch.zeros(1, dtype=torch.float64)), lengths
