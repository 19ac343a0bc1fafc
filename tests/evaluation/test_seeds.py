"""Estimators over training seeds, against rliable's own numbers and numbers worked out by hand."""

import numpy as np
import pytest

from safer_offline.evaluation import seeds, statistics

# Of rliable 1.2.0: metrics.aggregate_iqm and metrics.probability_of_improvement.
OURS = np.array([[5.0, 3, 4, 5, 3], [4, 5, 1, 0, 1], [1, 5, 5, 0, 2]])
THEIRS = np.array([[4.0, 0, 4, 0, 2], [4, 1, 2, 1, 4], [1, 5, 2, 2, 3], [3, 3, 3, 5, 4]])


def test_as_rliable_has_it():
    assert seeds.interquartile_mean(OURS) == pytest.approx(3.111111111111111)
    assert seeds.interquartile_mean(THEIRS) == pytest.approx(2.8)
    assert seeds.probability_of_improvement(OURS, THEIRS) == pytest.approx(0.5166666666666666)
    assert seeds.probability_of_improvement(THEIRS, OURS) == pytest.approx(0.4833333333333334)


def test_against_rliable_itself():
    metrics = pytest.importorskip("rliable.metrics")
    generator = np.random.default_rng(3)
    for shape, other in (((1, 7), (3, 7)), ((4, 50), (2, 50))):
        ours, theirs = (generator.integers(0, 9, size=s).astype(float) for s in (shape, other))
        assert seeds.interquartile_mean(ours) == pytest.approx(metrics.aggregate_iqm(ours))
        assert seeds.probability_of_improvement(ours, theirs) == pytest.approx(
            metrics.probability_of_improvement(ours, theirs)
        )


def test_a_profile_is_a_distribution():
    generator = np.random.default_rng(1)
    costs = generator.integers(0, 40, size=(3, 25)).astype(float)
    thresholds = np.arange(40.0)
    share, low, high = seeds.performance_profile(costs, thresholds)
    assert share.tolist() == [sum(c > t for c in costs.ravel()) / 75 for t in thresholds]
    assert (np.diff(share) <= 0).all()
    assert share[-1] == low[-1] == high[-1] == 0
    # The mean of whole numbers is the sum of how often they are above 0, 1, 2, ...
    assert share.sum() == pytest.approx(costs.mean())
    assert (low <= share).all()
    assert (share <= high).all()
    assert (low[5:30] < high[5:30]).all()
    again = seeds.performance_profile(costs, thresholds)
    assert [one.tolist() for one in again] == [share.tolist(), low.tolist(), high.tolist()]


def test_a_profile_is_that_of_rliable():
    library = pytest.importorskip("rliable.library")
    costs = np.random.default_rng(5).integers(0, 9, size=(4, 12)).astype(float)
    thresholds = np.linspace(0, 9, 7)
    theirs, _ = library.create_performance_profile({"a": costs}, thresholds, reps=10)
    assert seeds.performance_profile(costs, thresholds)[0] == pytest.approx(theirs["a"])


def test_the_worst_tenth_counts_the_last_episode_in_part():
    values = np.arange(25.0)  # 2.5 episodes: 24, 23, and half of 22
    assert statistics.conditional_value_at_risk(values) == pytest.approx((24 + 23 + 11) / 2.5)
    assert seeds.conditional_value_at_risk(values.reshape(5, 5)) == pytest.approx(58 / 2.5)
    assert statistics.conditional_value_at_risk(values, share=1) == pytest.approx(12)
    assert statistics.conditional_value_at_risk(values[:3]) == 2
    with pytest.raises(statistics.UsageError, match="share"):
        statistics.conditional_value_at_risk(values, share=0)


def test_statistics_of_many_resamples_are_those_of_each():
    many = np.random.default_rng(0).normal(size=(4, 3, 10))
    for statistic in (seeds.mean, seeds.interquartile_mean, seeds.conditional_value_at_risk):
        assert statistic(many).tolist() == pytest.approx([statistic(one) for one in many])


def test_improvement_compares_the_same_starts():
    """One start pays a thousand more than the others: that says nothing of who is better."""
    starts = np.array([0.0, 1000, 2000, 3000])
    assert seeds.probability_of_improvement(starts[None] + 1, starts[None]) == 1
    assert seeds.probability_of_improvement(starts[None], starts[None]) == 0.5
    assert np.isnan(seeds.improvement_interval(np.zeros((2, 3)), np.zeros((1, 3)))).all()
    # To win every time, of five times, is no certainty of winning always.
    assert np.isnan(seeds.improvement_interval(OURS + 9, THEIRS)).all()
    low, high = seeds.improvement_interval(OURS, THEIRS)
    assert low < 0.5166 < high
    assert (low, high) == seeds.improvement_interval(OURS, THEIRS)


def test_one_seed_has_the_interval_of_its_episodes():
    costs = np.random.default_rng(1).exponential(5, size=60)
    ours = seeds.bootstrap_interval(costs[None], seeds.mean, resamples=5000)
    assert ours == pytest.approx(statistics.bootstrap_interval(costs))


def test_intervals_grow_with_what_differs_between_seeds():
    """Episodes hardly differ, trainings do: a hundred episodes of three policies are no 300."""
    episodes = np.random.default_rng(2).normal(0, 0.1, size=(3, 100))
    trainings = np.array([[0.0], [5.0], [10.0]])
    alike = np.diff(seeds.bootstrap_interval(episodes, seeds.mean))
    apart = np.diff(seeds.bootstrap_interval(episodes + trainings, seeds.mean))
    assert alike < 0.1
    # Of three draws of three: 1/27 have the least mean, more than 2.5 %.
    assert apart == pytest.approx(10, abs=0.2)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(5)
    covered = 0
    for trial in range(60):
        scores = 3 + generator.normal(size=(12, 1)) + generator.normal(size=(1, 30))
        scores = scores + generator.normal(size=(12, 30))
        low, high = seeds.bootstrap_interval(scores, seeds.mean, resamples=300, seed=trial)
        covered += low <= 3 <= high
    assert covered >= 50


def test_equal_scores_have_no_interval():
    assert np.isnan(seeds.bootstrap_interval(np.full((2, 4), 7.0), seeds.mean)).all()


def test_bounds_are_those_of_the_worst_seed_and_hold_as_often_as_they_say():
    costs = np.array([[0.0] * 50, [20.0] * 5 + [0.0] * 45])
    low, high = seeds.violation_bounds(costs, 10)
    assert low == 0
    assert high == statistics.violation_bounds(costs[1], 10)[1]
    # Starts that are shared: either all seeds violate or none. Pooled bounds fail there.
    generator = np.random.default_rng(0)
    failures = pooled_failures = 0
    for _ in range(400):
        shared = np.tile(20.0 * (generator.random(30) < 0.2), (5, 1))
        failures += seeds.violation_bounds(shared, 10)[1] < 0.2
        pooled_failures += statistics.violation_bounds(shared.ravel(), 10)[1] < 0.2
    assert failures <= 0.05 * 400
    assert pooled_failures > 0.05 * 400
