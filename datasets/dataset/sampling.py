"""Random batches of transitions, fast and repeatable.

In memory, the columns are packed into one matrix with a row per transition, so that a batch is one
gather of whole rows instead of one gather per column; the columns of a batch are views of what was
gathered. From disk, the rows of many batches are fetched at once, in the order of the file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from safer_offline.datasets.dataset.access import BLOCK_ROWS, Columns, Table
from safer_offline.errors import UsageError

# Indices are drawn for many batches at once: one draw costs more in overhead than in numbers.
BATCHES_PER_BLOCK = 256


class MemoryTable:
    """Columns in memory, packed for fast gathering.

    Args:
        columns: Tensors (N,) or (N, size) of float32 or bool by name; bool becomes 0 and 1.

    Raises:
        UsageError: If columns differ in rows or have another type.
    """

    rows_at_once = 1

    def __init__(self, columns: Mapping[str, Tensor]) -> None:
        self._rows = _pack(columns)
        self._names = tuple(columns)
        self._flat = tuple(column.ndim == 1 for column in columns.values())
        self._widths = [1 if column.ndim == 1 else column.shape[1] for column in columns.values()]

    @property
    def num_rows(self) -> int:
        """Rows N."""
        return len(self._rows)

    def take(self, rows: Tensor) -> Columns:
        """The columns at these rows, (n,) int64."""
        return self._split(self._rows.index_select(0, rows))

    def stream(self) -> Iterator[Columns]:
        """All rows in order, in pieces of `BLOCK_ROWS`, as views."""
        for start in range(0, self.num_rows, BLOCK_ROWS):
            yield self._split(self._rows[start : start + BLOCK_ROWS])

    def _split(self, rows: Tensor) -> Columns:
        parts = rows.split_with_sizes(self._widths, dim=1)
        return {
            name: part[:, 0] if flat else part
            for name, flat, part in zip(self._names, self._flat, parts, strict=True)
        }


class TransitionSampler:
    """Draws batches of rows with replacement, all alike or in proportion to weights.

    The sequence of batches is a function of the table's number of rows, batch size, seed and
    weights; `state_dict` remembers the place in it, bit for bit.

    Args:
        table: What to draw from: a `Table`, or its columns.
        batch_size: Rows B of a batch.
        seed: Seed of the sequence.
        weights: How often a row is drawn in relation to the others, (N,); None for all alike.
        repeats: How many rows, one after the other, share each entry of `weights`, (E,); such as
            the lengths of episodes. None for one each.

    Raises:
        UsageError: If columns differ in rows or have another type, or the weights are unusable.
    """

    def __init__(
        self,
        table: Table | Mapping[str, Tensor],
        *,
        batch_size: int,
        seed: int,
        weights: Tensor | None = None,
        repeats: Tensor | None = None,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        self.batch_size = batch_size
        self._table = MemoryTable(table) if isinstance(table, Mapping) else table
        self._cumulative = (
            None if weights is None else _accumulate(weights, repeats, self._table.num_rows)
        )
        self._batches_at_once = max(1, self._table.rows_at_once // batch_size)
        self._device: torch.device | None = None
        self._generator = torch.Generator().manual_seed(seed)
        self._start_block()

    @property
    def num_rows(self) -> int:
        """Rows N that are drawn from."""
        return self._table.num_rows

    def sample(self) -> Columns:
        """The next batch: each column (B,) or (B, size), float32."""
        if not self._fetched:
            self._fetch()
        batch, self._place = self._fetched.popleft()
        if self._device is None:
            return batch
        return {name: column.to(self._device) for name, column in batch.items()}

    def to(self, device: torch.device) -> None:
        """Give the batches on a device from now on; they are the same ones, drawn on the CPU."""
        self._device = device

    def state_dict(self) -> dict[str, Any]:
        """Where the sequence of batches stands; plain types and tensors only."""
        generator, position = self._place
        return {
            "generator": generator,
            "position": position,
            "num_rows": self.num_rows,
            "batch_size": self.batch_size,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            UsageError: If the state belongs to other data or another batch size.
        """
        for name in ("num_rows", "batch_size"):
            if state[name] != getattr(self, name):
                raise UsageError(
                    f"the sampler was saved with {name} {state[name]} and has "
                    f"{getattr(self, name)} now; resume with the same data and settings"
                )
        self._generator.set_state(state["generator"])
        self._start_block()
        self._drawn = int(state["position"])
        self._place = (self._block_state, self._drawn)

    def _start_block(self) -> None:
        """Begin with the block that is drawn next, and forget what was fetched."""
        self._draw_block()
        self._fetched: deque[tuple[Columns, tuple[Tensor, int]]] = deque()
        # How many batches were given out of a block, and the generator before it was drawn.
        self._place = (self._block_state, 0)

    def _fetch(self) -> None:
        """Take the rows of the next batches from the table, and note the place behind each."""
        rows, places = [], []
        for _ in range(self._batches_at_once):
            if self._drawn == BATCHES_PER_BLOCK:
                self._draw_block()
            rows.append(self._block[self._drawn])
            self._drawn += 1
            places.append((self._block_state, self._drawn))
        if len(rows) == 1:
            self._fetched.append((self._table.take(rows[0]), places[0]))
            return
        columns = self._table.take(torch.cat(rows))
        parts = {
            name: column.split_with_sizes([self.batch_size] * len(rows))
            for name, column in columns.items()
        }
        for number, place in enumerate(places):
            batch = {name: part[number] for name, part in parts.items()}
            self._fetched.append((batch, place))

    def _draw_block(self) -> None:
        """Draw the row indices of the next batches, (BATCHES_PER_BLOCK, B)."""
        self._block_state = self._generator.get_state()
        self._drawn = 0
        shape = (BATCHES_PER_BLOCK, self.batch_size)
        if self._cumulative is None:
            self._block = torch.randint(self.num_rows, shape, generator=self._generator)
            return
        # Sums of exponential steps are uniform numbers in ascending order: searching for these
        # walks through memory once, which is several times as fast. The permutation unsorts them.
        draws = self.batch_size * BATCHES_PER_BLOCK
        steps = torch.empty(draws + 1, dtype=torch.float64).exponential_(generator=self._generator)
        ascending = steps.cumsum(0)
        scale = self._cumulative[-1] / ascending[-1]
        found = np.searchsorted(self._cumulative.numpy(), (ascending[:-1] * scale).numpy(), "right")
        # Rounding may carry a draw up to the total itself, which lies past the last row.
        rows = torch.from_numpy(found).clamp_(max=len(self._cumulative) - 1)
        self._block = rows[torch.randperm(draws, generator=self._generator)].reshape(shape)


def _pack(columns: Mapping[str, Tensor]) -> Tensor:
    if not columns:
        raise UsageError("there are no columns to sample from")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise UsageError(f"columns need the same number of rows, at least one: {lengths}")
    for name, column in columns.items():
        if column.dtype not in (torch.float32, torch.bool) or column.ndim not in (1, 2):
            raise UsageError(
                f"column '{name}' is {column.dtype} with {column.ndim} dimensions; "
                "it must be float32 or bool with 1 or 2"
            )
    return torch.cat(
        [column.reshape(len(column), -1).to(torch.float32) for column in columns.values()], dim=1
    )


def _accumulate(weights: Tensor, repeats: Tensor | None, rows: int) -> Tensor:
    """The cumulative sum of the rows' weights, float64, ending at the last that can be drawn."""
    entries = (rows,) if repeats is None else repeats.shape
    if weights.shape != entries or (repeats is not None and int(repeats.sum()) != rows):
        raise UsageError(f"weights have shape {tuple(weights.shape)}, the columns {rows} rows")
    weights = weights.to(torch.float64)
    if not (torch.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise UsageError("weights must be finite, >= 0 and not all zero")
    weights = weights[: int(weights.nonzero()[-1]) + 1]
    if repeats is None:
        return weights.cumsum(0)
    # In place: this is the one array of N numbers that is held when the rest is on disk.
    repeated = np.repeat(weights.numpy(), repeats[: len(weights)].numpy())
    return torch.from_numpy(repeated).cumsum_(0)
