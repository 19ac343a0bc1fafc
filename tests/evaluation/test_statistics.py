"""Estimators against numbers worked out by hand."""

import numpy as np
import pytest

from safer_offline.errors import UsageError
from safer_offline.evaluation import statistics


def test_mean_and_deviation():
    values = np.array([1, 2, 3, 6], np.float32)
    assert statistics.mean(values) == 3
    assert statistics.std(values) == pytest.approx(3.5**0.5)
    assert statistics.std(values[:1]) == 0


def test_violation_means_above_the_limit():
    assert statistics.violation_rate(np.array([0, 10, 10.5, 20]), 10) == 0.5


def test_normalised_scores():
    scores = statistics.normalised_return(np.array([100, 300, 600]), (100.0, 500.0))
    assert scores.tolist() == [0, 0.5, 1.25]
    assert statistics.normalised_cost(np.array([0, 10, 25]), 10).tolist() == [0, 1, 2.5]
    # With a limit of zero, an episode without cost is just safe.
    assert statistics.normalised_cost(np.array([0, 3]), 0).tolist() == [1, 4]
    with pytest.raises(UsageError, match="empty range"):
        statistics.normalised_return(np.array([1.0]), (2.0, 2.0))


def test_bootstrap_interval_is_seeded_and_agrees_with_theory():
    values = np.random.default_rng(0).normal(5, 2, size=400)
    low, high = statistics.bootstrap_interval(values, seed=3)
    assert (low, high) == statistics.bootstrap_interval(values, seed=3)
    assert (low, high) != statistics.bootstrap_interval(values, seed=4)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)
    assert statistics.bootstrap_interval(np.full(3, 7.0)) == (7, 7)


def test_worst_case_takes_most_cost_then_least_return():
    returns = np.array([[10, 20, 30], [1, 2, 3], [5, 1, 40]])
    costs = np.array([[0, 4, 2], [0, 4, 1], [0, 3, 9]])
    worst_returns, worst_costs = statistics.worst_case(returns, costs)
    assert worst_returns.tolist() == [1, 2, 40]
    assert worst_costs.tolist() == [0, 4, 9]
