"""Estimators against numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


@pytest.mark.parametrize("values", [np.zeros(50), np.full(3, 7.0), np.ones(1)])
def test_equal_values_are_no_evidence_of_a_certain_mean(values):
    assert np.isnan(statistics.bootstrap_interval(values)).all()


def test_no_violation_in_fifty_episodes_may_still_be_six_percent():
    low, high = statistics.violation_bounds(np.full(50, 10.0), 10)
    assert low == 0
    assert high == pytest.approx(1 - 0.05 ** (1 / 50))
    assert f"{high:.1%}" == "5.8%"
    # Violated every time, the other way round.
    low, high = statistics.violation_bounds(np.full(50, 11.0), 10)
    assert low == pytest.approx(0.05 ** (1 / 50))
    assert high == 1


@settings(max_examples=50, deadline=None)
@given(episodes=st.integers(1, 200), share=st.floats(0, 1), confidence=st.floats(0.5, 0.999))
def test_bounds_are_where_the_binomial_tail_is_improbable(episodes, share, confidence):
    violations = round(share * episodes)
    costs = np.repeat([11.0, 10.0], [violations, episodes - violations])
    low, high = statistics.violation_bounds(costs, 10, confidence=confidence)
    assert 0 <= low <= violations / episodes <= high <= 1

    def probability(most, chance):
        return sum(
            math.comb(episodes, k) * chance**k * (1 - chance) ** (episodes - k)
            for k in range(most + 1)
        )

    if violations < episodes:  # so few would be improbable, were it more frequent
        assert probability(violations, high) == pytest.approx(1 - confidence, rel=1e-6)
    if violations:  # so many, were it rarer
        assert probability(violations - 1, low) == pytest.approx(confidence, rel=1e-6)


def test_worst_case_takes_most_cost_then_least_return():
    returns = np.array([[10, 20, 30], [1, 2, 3], [5, 1, 40]])
    costs = np.array([[0, 4, 2], [0, 4, 1], [0, 3, 9]])
    worst_returns, worst_costs = statistics.worst_case(returns, costs)
    assert worst_returns.tolist() == [1, 2, 40]
    assert worst_costs.tolist() == [0, 4, 9]
