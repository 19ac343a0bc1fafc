"""Estimators over several training seeds: plain functions of arrays.

`scores` has shape (seeds, episodes): one number for each episode of each policy. The policies
differ in the seed of their training, and episode j starts alike for all of them.

The definitions of the interquartile mean and of the probability of improvement are those of rliable
(Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS
2021), with a start of the environment for what is a task there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safer_offline.evaluation import statistics
from safer_offline.evaluation.statistics import FloatArray

Statistic = Callable[[FloatArray], FloatArray]
"""Of scores (..., seeds, episodes), a number for each leading index, shape (...)."""


def mean(scores: FloatArray) -> FloatArray:
    """Arithmetic mean over seeds and episodes."""
    averages: FloatArray = scores.mean(axis=(-2, -1))
    return averages


def interquartile_mean(scores: FloatArray) -> FloatArray:
    """Mean of the middle half of all scores: less moved by outliers than the mean.

    A quarter of them, rounded down, is left out at either end.
    """
    ordered = _sorted(scores)
    count = ordered.shape[-1]
    cut = int(0.25 * count)
    middle: FloatArray = ordered[..., cut : count - cut].mean(axis=-1)
    return middle


def conditional_value_at_risk(scores: FloatArray) -> FloatArray:
    """Mean of the largest tenth of all scores; see `statistics.conditional_value_at_risk`."""
    ordered = _sorted(scores)
    weights = statistics.tail_weights(ordered.shape[-1], share=statistics.TAIL)[::-1]
    worst: FloatArray = ordered @ weights
    return worst


def probability_of_improvement(ours: FloatArray, theirs: FloatArray) -> FloatArray:
    """How probably a policy of one method scores higher than one of the other on the same start.

    Each policy of one meets each of the other; equal scores count half. For each start that is the
    Mann-Whitney statistic; starts are averaged.

    Args:
        ours: Scores (..., seeds, episodes).
        theirs: Scores (..., other seeds, episodes) of the same starts.

    Returns:
        Probabilities, shape (...).
    """
    probabilities: FloatArray = _outcomes(ours, theirs).mean(axis=(-3, -2, -1))
    return probabilities


def bootstrap_interval(
    scores: NDArray[Any],
    statistic: Statistic,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic, over training seeds and episodes.

    Each resample draws seeds, and starts for all of them alike: neither another training nor other
    episodes would give the same scores. With a single seed the interval tells of its policy alone.
    (rliable draws the seeds of every task anew; here one policy meets all starts, so that its
    luck in training stays with it.)

    Source: Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1, 2007.

    Args:
        scores: Shape (seeds, episodes).
        statistic: What the interval is of.
        confidence: Probability that the interval shall cover the true value.
        resamples: Bootstrap samples.
        seed: Of the resampling: equal seeds give equal intervals.

    Returns:
        Lower and upper end; NaN where all scores are equal, as in `statistics.bootstrap_interval`.
    """
    scores = np.asarray(scores, np.float64)
    if (scores == scores.flat[0]).all():
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    starts = _picks(generator, resamples, scores.shape[1])
    samples = _resampled(scores, _picks(generator, resamples, scores.shape[0]), starts)
    return _quantiles(statistic(samples), confidence)


def improvement_interval(
    ours: NDArray[Any],
    theirs: NDArray[Any],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of `probability_of_improvement`.

    Stratified by method: each draws its own training seeds, both draw the same starts.

    Args:
        ours: Scores (seeds, episodes).
        theirs: Scores (other seeds, episodes) of the same starts.
        confidence: Probability that the interval shall cover the true value.
        resamples: Bootstrap samples.
        seed: Of the resampling.

    Returns:
        Lower and upper end; NaN where every pair of episodes ends alike, which no resample would
        change and which is no evidence of a certain winner.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    outcomes = _outcomes(ours, theirs)
    if (outcomes == outcomes.flat[0]).all():
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    starts = _picks(generator, resamples, ours.shape[1])
    left, right = (
        _resampled(scores, _picks(generator, resamples, scores.shape[0]), starts)
        for scores in (ours, theirs)
    )
    return _quantiles(probability_of_improvement(left, right), confidence)


def performance_profile(
    scores: NDArray[Any],
    thresholds: NDArray[Any],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """How many of all episodes score above each threshold, as rliable's score distributions.

    Args:
        scores: Shape (seeds, episodes).
        thresholds: Shape (T,).
        confidence: Of the interval at each threshold by itself.
        resamples: Bootstrap samples, drawn as in `bootstrap_interval`.
        seed: Of the resampling.

    Returns:
        Shares, lower and upper ends, each (T,).
    """
    scores = np.asarray(scores, np.float64)
    generator = np.random.default_rng(seed)
    starts = _picks(generator, resamples, scores.shape[1])
    samples = _resampled(scores, _picks(generator, resamples, scores.shape[0]), starts)
    shares, lows, highs = np.empty((3, len(thresholds)))
    for place, threshold in enumerate(thresholds):
        shares[place] = (scores > threshold).mean()
        lows[place], highs[place] = _quantiles(mean(samples > threshold), confidence)
    return shares, lows, highs


def violation_bounds(
    costs: NDArray[Any], cost_limit: float, *, confidence: float = 0.95
) -> tuple[float, float]:
    """Exact bounds on how often episodes exceed the limit, whichever of the seeds is meant.

    The upper one is the largest of the seeds' own (`statistics.violation_bounds`). It bounds the
    worst seed's probability, with all of the confidence: its own bound does, and is no larger. So
    it bounds their mean, too. To pool the episodes would give smaller bounds that need not hold,
    since the seeds meet the same starts. The lower bound likewise.

    Args:
        costs: Undiscounted episode costs, shape (seeds, episodes).
        cost_limit: Largest allowed episode cost.
        confidence: Of each bound.
    """
    bounds = [statistics.violation_bounds(one, cost_limit, confidence=confidence) for one in costs]
    return min(low for low, _ in bounds), max(high for _, high in bounds)


def _outcomes(ours: FloatArray, theirs: FloatArray) -> FloatArray:
    """1, 0.5 or 0 for a win, a draw or a loss of each pair of seeds on each start."""
    outcomes: FloatArray = 0.5 * (np.sign(ours[..., :, None, :] - theirs[..., None, :, :]) + 1)
    return outcomes


def _sorted(scores: FloatArray) -> FloatArray:
    flat: FloatArray = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    return flat


def _picks(generator: np.random.Generator, resamples: int, count: int) -> NDArray[np.int64]:
    return generator.integers(count, size=(resamples, count))


def _resampled(
    scores: FloatArray, seeds: NDArray[np.int64], starts: NDArray[np.int64]
) -> FloatArray:
    return scores[seeds[:, :, None], starts[:, None, :]]


def _quantiles(values: FloatArray, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
