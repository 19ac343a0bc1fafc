"""Estimators on the episodes of an evaluation: plain functions of arrays.

Throughout, `values`, `returns` and `costs` have shape (episodes,) unless said otherwise.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from safer_offline.errors import UsageError

FloatArray = NDArray[np.float64]


def mean(values: NDArray[Any]) -> float:
    """Arithmetic mean."""
    return float(np.mean(values, dtype=np.float64))


def std(values: NDArray[Any]) -> float:
    """Standard deviation over these very episodes (divisor n), as the literature reports it."""
    return float(np.std(values, dtype=np.float64))


def violation_rate(costs: NDArray[Any], cost_limit: float) -> float:
    """Share of the episodes whose cost exceeds the limit, in [0, 1]."""
    return float(np.mean(np.asarray(costs) > cost_limit))


def violation_bounds(
    costs: NDArray[Any], cost_limit: float, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Exact bounds on the probability that an episode exceeds the limit.

    Each is one-sided, since the question is how often at most: with probability `confidence` or
    more the upper bound is not exceeded, and the same holds of the lower bound by itself. Both at
    once enclose the probability with 2 * `confidence` - 1 or more. No violation in 50 episodes
    leaves an upper bound of 5.8 % (a two-sided interval of 95 % would end at 7.1 %).

    Source: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case
    of the binomial", Biometrika 26, 1934: quantiles of the beta distribution.

    Args:
        costs: Undiscounted episode costs.
        cost_limit: Largest allowed episode cost.
        confidence: Of each bound.

    Returns:
        Lower and upper bound, in [0, 1].
    """
    episodes = len(costs)
    violations = int(np.sum(np.asarray(costs) > cost_limit))
    low, high = 0.0, 1.0
    if violations:
        low = float(betaincinv(violations, episodes - violations + 1, 1 - confidence))
    if violations < episodes:
        high = float(betaincinv(violations + 1, episodes - violations, confidence))
    return low, high


def normalised_return(returns: NDArray[Any], reward_range: tuple[float, float]) -> FloatArray:
    """(R - R_min) / (R_max - R_min) with the extreme episode returns of the dataset.

    Source: Liu et al., "Datasets and Benchmarks for Offline Safe Reinforcement Learning", 2023.

    Args:
        returns: Undiscounted episode returns.
        reward_range: R_min and R_max.

    Raises:
        UsageError: If the range is empty.
    """
    low, high = reward_range
    if not low < high:
        raise UsageError(f"returns cannot be normalised by the empty range [{low}, {high}]")
    return (np.asarray(returns, np.float64) - low) / (high - low)


def normalised_cost(costs: NDArray[Any], cost_limit: float) -> FloatArray:
    """C / limit, at most 1 where an episode is safe; (C + 1) / (limit + 1) for a limit of zero.

    Source: as for `normalised_return`.
    """
    shift = 1.0 if cost_limit == 0 else 0.0
    return (np.asarray(costs, np.float64) + shift) / (cost_limit + shift)


def bootstrap_interval(
    values: NDArray[Any], *, confidence: float = 0.95, resamples: int = 5000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap confidence interval of the mean over episodes.

    Equal values have none: every resample of them is the same, which says nothing of how far the
    true mean may lie from it. An episode that costs a hundred may occur once in a thousand and not
    have been among these. What can be said then is how often, not how much: `violation_bounds`.

    Args:
        values: One number an episode.
        confidence: Probability that the interval shall cover the true mean.
        resamples: Bootstrap samples.
        seed: Of the resampling: equal seeds give equal intervals.

    Returns:
        Lower and upper end; NaN where all values are equal.
    """
    values = np.asarray(values, np.float64)
    if (values == values[0]).all():
        return math.nan, math.nan
    picks = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(values[picks].mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)


def worst_case(returns: NDArray[Any], costs: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
    """Return and cost of each episode under the attack that harms that episode most.

    Most harm is the largest cost and, among equal costs, the smallest return. The episodes of all
    attacks must start alike.

    Args:
        returns: Shape (attacks, episodes).
        costs: Shape (attacks, episodes).

    Returns:
        Returns and costs, each of shape (episodes,).
    """
    returns, costs = np.asarray(returns, np.float64), np.asarray(costs, np.float64)
    most_harmful = np.lexsort((returns, -costs), axis=0)[:1]
    return (
        np.take_along_axis(returns, most_harmful, axis=0)[0],
        np.take_along_axis(costs, most_harmful, axis=0)[0],
    )


TAIL = 0.1
"""Share of the episodes that count as the worst."""


def conditional_value_at_risk(values: NDArray[Any], *, share: float = TAIL) -> float:
    """Mean of the largest `share` of the values: what the worst episodes cost.

    Where that share is no whole number of episodes, the last one counts in part.

    Source: Rockafellar and Uryasev, "Conditional value-at-risk for general loss distributions",
    Journal of Banking & Finance 26, 2002, for the distribution of these very episodes.

    Args:
        values: One number an episode.
        share: Of the episodes, in (0, 1]; 1 gives the mean.
    """
    worst = np.sort(np.asarray(values, np.float64))[::-1]
    return float(tail_weights(len(worst), share=share) @ worst)


def tail_weights(count: int, *, share: float) -> FloatArray:
    """How much each of `count` values, the largest first, counts in the mean of the tail.

    Raises:
        UsageError: If the share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise UsageError(f"share must be in (0, 1], but is {share}")
    weights = np.clip(share * count - np.arange(count), 0, 1)
    normalised: FloatArray = weights / weights.sum()
    return normalised


def area_under(epsilons: NDArray[Any], costs: NDArray[Any]) -> float:
    """Area under a curve of cost against budget, by the trapezoidal rule.

    Args:
        epsilons: Budgets, ascending, shape (budgets,).
        costs: Mean cost at each, shape (budgets,).
    """
    heights = np.asarray(costs, np.float64)
    return float(np.diff(np.asarray(epsilons, np.float64)) @ (heights[1:] + heights[:-1]) / 2)


def largest_within(epsilons: NDArray[Any], costs: NDArray[Any], cost_limit: float) -> float:
    """The largest budget up to which the cost keeps the limit at every budget that was tried.

    Nothing is said of budgets between those that were tried.

    Args:
        epsilons: Budgets, ascending, shape (budgets,).
        costs: Mean cost at each, shape (budgets,).
        cost_limit: Largest allowed episode cost.

    Returns:
        One of the budgets; NaN if the first breaks the limit already.
    """
    broken = np.flatnonzero(np.asarray(costs) > cost_limit)
    kept = int(broken[0]) if len(broken) else len(costs)
    return float(epsilons[kept - 1]) if kept else math.nan
