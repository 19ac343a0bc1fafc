"""What a row of an episode has to do with the rest of it: its total, and what is still to come."""

from __future__ import annotations

import torch
from torch import Tensor


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
