"""Which episodes count how much: against comparing all pairs, and by what the words say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safer_offline.learners.selection import (
    episode_weights,
    fit_frontier,
    frontier_distances,
    nondominated,
)

small = st.integers(0, 4).map(float)


@given(st.lists(st.tuples(small, small), min_size=1, max_size=12))
def test_an_episode_is_nondominated_if_none_is_better(points):
    costs, returns = np.array(points).T
    at_least = (costs <= costs[:, None]) & (returns >= returns[:, None])
    better = at_least & ((costs < costs[:, None]) | (returns > returns[:, None]))
    assert nondominated(costs, returns).tolist() == (~better.any(1)).tolist()


def test_the_frontier_is_the_simplest_curve_that_explains_the_best_episodes():
    costs = np.arange(20.0)
    line = fit_frontier(costs, 3 * costs + 1)
    assert line.degree() == 1
    assert line(30.0) == pytest.approx(91)
    assert fit_frontier(costs, costs**4).degree() == 2
    assert fit_frontier(np.zeros(3), np.ones(3))(5.0) == 1
    distances = frontier_distances(costs, 3 * costs + 1 - np.sqrt(10), line)
    assert distances[1:] == pytest.approx(np.ones(19), abs=0.01)
    assert distances[0] == pytest.approx(np.sqrt(10), abs=0.01)  # the foot has no cost below 0


def test_weights_say_what_their_names_say():
    costs, returns = np.array([0.0, 0, 0, 0, 100]), np.array([10.0, 10, 10, 10, 20])
    weights = {
        name: episode_weights(name, costs, returns, cost_cap=70)
        for name in ("rows", "return", "cost", "density", "frontier")
    }
    assert weights["rows"].tolist() == [1] * 5
    assert weights["return"].tolist() == [0, 0, 0, 0, 1]
    assert weights["cost"].tolist() == [70, 70, 70, 70, 0]
    assert weights["density"].tolist() == [0.25, 0.25, 0.25, 0.25, 1]
    below = episode_weights("frontier", np.append(costs, 50), np.append(returns, 5), cost_cap=70)
    assert below[-1] < below[:-1].min()
    for name in ("rows", "return", "cost", "density", "frontier"):
        alike = episode_weights(name, np.zeros(3), np.ones(3), cost_cap=70)
        assert (alike > 0).all()
        assert np.ptp(alike) == 0
