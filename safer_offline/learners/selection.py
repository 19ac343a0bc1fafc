"""Which episodes an imitator looks at, and how much each of them counts, by return and cost.

As OSRL has it (Liu et al., "Datasets and Benchmarks for Offline Safe Reinforcement Learning",
2023): its modes of behaviour cloning choose episodes, its samplers for CDT weigh them. All
functions take the undiscounted costs and returns of E episodes, each of shape (E,).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from safer_offline.datasets.dataset.access import Table, TransitionSource
from safer_offline.datasets.dataset.sampling import TransitionSampler
from safer_offline.errors import DataError

Floats = NDArray[np.float64]
Weighting = Literal["rows", "return", "cost", "density", "frontier"]

DENSITY_CELLS = (10, 50)
"""Cells of cost and of return in which episodes are counted, as in OSRL."""

CURVE_POINTS = 1024


def nondominated(costs: Floats, returns: Floats) -> NDArray[np.bool_]:
    """Episodes than which none has less cost and no less return, or more return at no more cost."""
    order = np.lexsort((-returns, costs))
    # The best return at strictly less cost, and at the same cost: the first of a group is its best.
    best = np.maximum.accumulate(returns[order])
    first = np.searchsorted(costs[order], costs[order], side="left")
    cheaper = np.where(first > 0, best[first - 1], -np.inf)
    kept = (returns[order] > cheaper) & (returns[order] == returns[order][first])
    found = np.zeros(len(costs), np.bool_)
    found[order] = kept
    return found


def fit_frontier(
    costs: Floats, returns: Floats, *, degrees: Sequence[int] = (0, 1, 2), enough: float = 0.9
) -> Polynomial:
    """The return that can be had at a cost: a polynomial through the nondominated episodes.

    Args:
        costs: Of the episodes.
        returns: Of the episodes.
        degrees: Degrees to try in turn; never more than the points determine.
        enough: The first degree that explains this share of their variance is taken, else the last.
    """
    front = nondominated(costs, returns)
    x, y = costs[front], returns[front]
    determined = len(np.unique(x)) - 1
    spread = float(((y - y.mean()) ** 2).sum())
    curve = Polynomial([y.mean()])
    for degree in sorted({min(degree, determined) for degree in degrees}):
        curve = Polynomial.fit(x, y, degree) if degree else Polynomial([y.mean()])
        if float(((y - curve(x)) ** 2).sum()) <= (1 - enough) * spread:
            break
    return curve


def near_frontier(costs: Floats, returns: Floats, *, band: float) -> NDArray[np.bool_]:
    """Episodes whose return is within `band`, a share of the range of returns, of the frontier."""
    reach = band * (returns.max() - returns.min())
    chosen: NDArray[np.bool_] = np.abs(returns - fit_frontier(costs, returns)(costs)) <= reach
    return chosen


def frontier_distances(costs: Floats, returns: Floats, curve: Polynomial) -> Floats:
    """How far each episode is from the nearest point of the curve at costs >= 0, (E,)."""
    margin = float(np.ptp(costs)) or 1.0
    along = np.linspace(max(0.0, costs.min() - margin), costs.max() + margin, CURVE_POINTS)
    heights = curve(along)
    nearest = [
        np.hypot(along - cost, heights - gain).min()
        for cost, gain in zip(costs, returns, strict=True)
    ]
    return np.asarray(nearest, np.float64)


def episode_weights(
    weighting: Weighting, costs: Floats, returns: Floats, *, cost_cap: float
) -> Floats:
    """How often an episode is drawn in relation to the others, (E,), >= 0.

    Args:
        weighting: `return`: in proportion to the return above the least one. `cost`: to what is
            left of `cost_cap`, as OSRL's CDT has it. `density`: one over the number of episodes in
            the same cell of cost and return, so that rare kinds are seen as often as common ones.
            `frontier`: 1 / (1 + distance to the frontier), OSRL's `pf_sample`. `rows`: all alike.
        costs: Of the episodes.
        returns: Of the episodes.
        cost_cap: The cost from which on an episode is never drawn, by `cost`.
    """
    if weighting == "return":
        spread = np.ptp(returns)
        return (returns - returns.min()) / spread if spread else np.ones_like(returns)
    if weighting == "cost":
        return np.maximum(0.0, cost_cap - costs)
    if weighting == "density":
        cells = _cells(costs, DENSITY_CELLS[0]) * DENSITY_CELLS[1]
        _, cell_of, counts = np.unique(
            cells + _cells(returns, DENSITY_CELLS[1]), return_inverse=True, return_counts=True
        )
        weights: Floats = 1.0 / counts[cell_of]
        return weights
    if weighting == "frontier":
        distances = frontier_distances(costs, returns, fit_frontier(costs, returns))
        return 1.0 / (1.0 + distances)
    return np.ones_like(costs)


def sample_by_episode(
    dataset: TransitionSource,
    table: Table,
    *,
    weighting: Weighting,
    cost_cap: float,
    batch_size: int,
    seed: int,
    chosen: NDArray[np.bool_] | None = None,
) -> TransitionSampler:
    """Draws rows: episodes in proportion to their weights, then one of their rows.

    Args:
        dataset: Whose episodes.
        table: With a row for each transition of the dataset.
        weighting: See `episode_weights`; by `rows`, every row alike.
        cost_cap: See there.
        batch_size: Rows of a batch.
        seed: Of the sequence of batches.
        chosen: Which episodes to look at, (E,); None for all.

    Raises:
        DataError: If no episode is left.
    """
    episodes = dataset.episodes
    costs, returns = (episodes[name].to_numpy(float) for name in ("cost", "return"))
    lengths = torch.tensor(episodes["length"].to_numpy())
    weights = torch.from_numpy(episode_weights(weighting, costs, returns, cost_cap=cost_cap))
    if weighting != "rows":
        weights = weights / lengths
    if chosen is not None:
        weights = weights * torch.from_numpy(chosen)
    if not weights.any():
        raise DataError(
            f"with weighting={weighting} no chosen episode counts",
            path=dataset.path,
            field="costs",
            remedy=f"raise cost_cap ({cost_cap:g}) above {costs.min():g}, the least cost of an "
            "episode, or take another weighting",
        )
    return TransitionSampler(
        table, batch_size=batch_size, seed=seed, weights=weights, repeats=lengths
    )


def _cells(values: Floats, count: int) -> NDArray[np.int64]:
    """The cell of each value, of `count` equal ones over their range."""
    spread = np.ptp(values) or 1.0
    cells = np.minimum(count - 1, (values - values.min()) / spread * count)
    return np.asarray(cells, np.int64)
