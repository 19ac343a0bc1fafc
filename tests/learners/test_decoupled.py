"""The decoupled M-step against torch.distributions, CVXPY and free minimisation."""

import math

import cvxpy
import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from safer_offline.learners.decoupled import (
    Moments,
    Pair,
    ascend,
    decoupled_kl,
    hold,
    solved_multipliers,
)


def diagonal(mean, std):
    return Independent(Normal(mean, std), 1)


def pair(*values):
    return Pair(*torch.tensor(values, dtype=torch.float64))


@pytest.fixture
def batch():
    """Candidates (N, B, da), their weights, and two policies, all float64."""
    generator = torch.Generator().manual_seed(0)
    states, size, count = 12, 3, 9

    def noise(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    old = 0.3 * noise(states, size), 0.2 + 0.5 * noise(states, size).abs()
    new = 0.3 * noise(states, size), 0.2 + 0.5 * noise(states, size).abs()
    return noise(count, states, size), noise(count, states).softmax(0), old, new


def test_the_divergences_are_those_of_the_distributions(batch):
    _, _, (old_mean, old_std), (mean, std) = batch
    found = decoupled_kl(old_mean, old_std, mean, std)
    old = diagonal(old_mean, old_std)
    torch.testing.assert_close(found.mean, kl_divergence(old, diagonal(mean, old_std)))
    torch.testing.assert_close(found.deviation, kl_divergence(old, diagonal(old_mean, std)))
    # Together they are the whole divergence, but that its mean counts in new deviations.
    whole = kl_divergence(old, diagonal(mean, std))
    in_new = decoupled_kl(old_mean, std, mean, std).mean
    torch.testing.assert_close(found.deviation + in_new, whole)


def test_the_likelihood_is_the_weighted_sum_over_candidates(batch):
    candidates, weights, (old_mean, old_std), (mean, std) = batch
    moments = Moments.of(candidates, weights, (old_mean, old_std))
    logs = diagonal(mean, old_std).log_prob(candidates) + diagonal(old_mean, std).log_prob(
        candidates
    )
    torch.testing.assert_close(moments.nll(mean, std), -(weights * logs).sum(0))


@pytest.mark.parametrize(("mean_limit", "deviation_limit"), [(0.01, 1e-3), (0.3, 0.2)])
def test_multipliers_are_those_that_cvxpy_finds(batch, mean_limit, deviation_limit):
    candidates, weights, old, _ = batch
    moments = Moments.of(candidates, weights, old)
    found = solved_multipliers(moments, pair(mean_limit, deviation_limit))
    states = len(moments.mean)
    old_mean, old_std, wanted, square = (
        getattr(moments, name).numpy() for name in ("old_mean", "old_std", "mean", "square")
    )
    mean, precision = cvxpy.Variable(wanted.shape), cvxpy.Variable(wanted.shape)

    def half_squares(difference):
        return cvxpy.sum_squares(cvxpy.multiply(difference, 1 / old_std)) / (2 * states)

    near = half_squares(mean - old_mean) <= mean_limit
    cvxpy.Problem(cvxpy.Minimize(half_squares(mean - wanted)), [near]).solve(solver="CLARABEL")
    relative = cvxpy.multiply(precision, old_std**2)
    wide = cvxpy.sum(relative - 1 - cvxpy.log(relative)) / (2 * states) <= deviation_limit
    fit = cvxpy.sum(cvxpy.multiply(precision, square) - cvxpy.log(precision)) / (2 * states)
    cvxpy.Problem(cvxpy.Minimize(fit), [wide]).solve(solver="CLARABEL")
    assert found.mean > 0
    assert found.deviation > 0
    assert float(found.mean) == pytest.approx(np.squeeze(near.dual_value), rel=1e-4)
    assert float(found.deviation) == pytest.approx(np.squeeze(wide.dual_value), rel=1e-4)
    np.testing.assert_allclose(
        mean.value, old_mean + (wanted - old_mean) / (1 + float(found.mean)), atol=1e-5
    )


def test_under_its_multipliers_the_free_minimum_just_keeps_the_limits(batch):
    candidates, weights, old, _ = batch
    moments = Moments.of(candidates, weights, old)
    limits = pair(0.01, 1e-3)
    multipliers = solved_multipliers(moments, limits)
    mean = old[0].clone().requires_grad_()
    log_std = old[1].log().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [mean, log_std], max_iter=500, tolerance_grad=1e-11, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        found = moments.divergences(mean, log_std.exp())
        price = multipliers.mean * found.mean + multipliers.deviation * found.deviation
        loss = (moments.nll(mean, log_std.exp()) + price).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    found = moments.divergences(mean.detach(), log_std.detach().exp())
    for divergence, limit in zip(found, limits, strict=True):
        assert float(divergence.mean()) == pytest.approx(float(limit), rel=1e-4)


def test_limits_that_do_not_bind_have_no_multiplier(batch):
    candidates, weights, old, _ = batch
    found = solved_multipliers(Moments.of(candidates, weights, old), pair(1e3, 1e3))
    assert [float(value) for value in found] == [0, 0]


def test_candidates_that_agree_leave_a_finite_multiplier(batch):
    _, _, old, _ = batch
    moments = Moments.of(old[0][None], torch.ones(1, 12, dtype=torch.float64), old)
    found = solved_multipliers(moments, pair(0.01, 1e-3))
    assert float(found.mean) == 0
    assert 0 < float(found.deviation) < math.inf


def test_a_step_too_long_is_shortened_along_its_line():
    start = [torch.tensor([1.0, 2.0]), torch.tensor(0.5)]
    far = [torch.tensor([4.0, -2.0]), torch.tensor(2.5)]
    step = [f - s for f, s in zip(far, start, strict=True)]
    parameters = [tensor.clone() for tensor in far]

    def divergences():
        moved = parameters[0] - start[0]
        return Pair((moved**2).sum(), 1e-3 * (parameters[1] - start[1]).abs())

    limits = Pair(torch.tensor(0.01), torch.tensor(1.0))
    found = hold(parameters, start, divergences, limits)
    assert found == divergences()
    assert 0.5 * limits.mean < found.mean <= limits.mean
    share = (parameters[1] - start[1]) / step[1]
    torch.testing.assert_close(parameters[0] - start[0], share * step[0])
    kept = [tensor.clone() for tensor in parameters]
    hold(parameters, start, divergences, limits)
    assert all(torch.equal(a, b) for a, b in zip(parameters, kept, strict=True))


def test_a_step_that_leads_nowhere_is_undone():
    start, parameters = [torch.ones(2)], [torch.full((2,), torch.nan)]
    hold(
        parameters,
        start,
        lambda: Pair((parameters[0] - 1).sum(), torch.zeros(())),
        Pair(torch.tensor(0.1), torch.tensor(0.1)),
    )
    assert torch.equal(parameters[0], start[0])


def test_the_authors_multipliers_follow_the_excess_up_to_a_cap():
    settings = {"steps": (1.0, 100.0), "caps": (0.1, 10.0)}
    limits = Pair(torch.tensor(0.01), torch.tensor(1e-4))
    moved = ascend(torch.zeros(2), Pair(torch.tensor(0.03), torch.tensor(0.0)), limits, **settings)
    torch.testing.assert_close(moved, torch.tensor([0.02, 0.0]))
    moved = ascend(moved, Pair(torch.tensor(0.5), torch.tensor(0.0101)), limits, **settings)
    torch.testing.assert_close(moved, torch.tensor([0.1, 1.0]))
