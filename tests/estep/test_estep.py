"""The constrained E-step against its conditions of optimality, its symmetries and an oracle."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safer_offline.estep import (
    ESTEP_SOLVERS,
    EStepResult,
    Multipliers,
    solve_estep,
    solve_estep_cvxpy,
)
from safer_offline.estep.dual import EStepProblem, evaluate_dual


def gaussian_batch(seed=0, actions=16, states=8, correlation=0.5):
    """Reward and cost values, (actions, states), that trade off against each other."""
    generator = torch.Generator().manual_seed(seed)
    reward = torch.randn(actions, states, generator=generator, dtype=torch.float64)
    noise = torch.randn(actions, states, generator=generator, dtype=torch.float64)
    return reward, correlation * reward + noise + 3.0


def stressful_batch(seed):
    """One of many kinds of batches, some with ties, rare costs, zero weights or a huge spread."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low, high):
        return low + (high - low) * torch.rand((), generator=generator).item()

    shapes = [(1200, 1), (64, 256), (16, 8), (3, 1), (5, 3), (16, 40)]
    shape = shapes[seed % len(shapes)]
    reward = torch.randn(shape, generator=generator, dtype=torch.float64)
    cost = torch.randn(shape, generator=generator, dtype=torch.float64)
    kind = seed // len(shapes) % 7
    if kind == 1:  # heavy tails
        reward, cost = reward.exp(), (cost - 1).exp()
    elif kind == 2:  # rare binary costs
        cost = (cost > uniform(1, 2)).double()
    elif kind == 3:  # ties in both
        reward, cost = reward.round(), cost.round()
    elif kind == 4:  # both binary: optima inside the KL ball
        reward, cost = (reward > 0).double(), (cost > uniform(-1, 1)).double()
    elif kind == 5:  # cost all but a multiple of reward
        cost = uniform(-1, 1) * reward + 0.01 * cost
    elif kind == 6:  # a few states hold all the spread
        scales = torch.randn(shape[1], generator=generator, dtype=torch.float64)
        reward, cost = reward * 10**scales, cost * 10**-scales
    reward = reward * 10 ** uniform(-2, 3) + uniform(-100, 100)
    cost = cost * 10 ** uniform(-3, 2) + uniform(0, 3)
    share = uniform(-0.2, 1.1)
    weights = None
    if seed % 5 == 0:
        weights = torch.rand(shape, generator=generator, dtype=torch.float64)
        weights = weights * (weights > 0.3)
        weights[0] += 1e-3
    return reward, cost, {
        "cost_limit": (cost.min() + share * (cost.mean() - cost.min())).item(),
        "kl_limit": 10 ** uniform(math.log10(0.003), math.log10(2)),
        "base_weights": weights,
    }  # fmt: skip


def mean_under(weights, values):
    return (weights.double() * values.double()).sum(0).mean().item()


def mean_kl(weights, base=None):
    base = torch.full_like(weights, 1 / len(weights)) if base is None else base / base.sum(0)
    terms = torch.where(weights > 0, weights * (weights / base).log(), 0.0)
    return terms.sum(0).mean().item()


def assert_optimal(result: EStepResult, reward, cost, *, kl_limit, base_weights=None, **_):
    """The conditions of optimality, computed here from the definition."""
    q = result.weights
    assert result.kkt_residual <= 1e-6
    assert result.duality_gap <= 2e-6
    assert bool((q >= 0).all())
    torch.testing.assert_close(q.sum(0), torch.ones_like(q.sum(0)))
    assert mean_kl(q, base_weights) <= kl_limit * (1 + 1e-6)
    spread = (cost.max() - cost.min()).item() or 1.0
    assert mean_under(q, cost) <= result.cost_limit + 1e-6 * spread
    assert result.eta > 0
    assert result.lam >= 0
    assert result.lam == 0 or result.status != "inactive"


# The dual


@pytest.mark.parametrize("eta", [0.05, 1.0, 7.0])
@pytest.mark.parametrize("lam", [0.0, 2.0])
def test_derivatives_of_the_dual_match_autograd(eta, lam):
    reward, cost = gaussian_batch()
    base = torch.rand(reward.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    base /= base.sum(0)
    problem = EStepProblem(reward=reward, cost=cost, base_weights=base, kl_limit=0.3, budget=2.0)

    def dual(multipliers):
        eta, lam = multipliers
        log_z = torch.logsumexp(base.log() + (reward - lam * cost) / eta, dim=0)
        return eta * 0.3 + lam * 2.0 + eta * log_z.mean()

    at = torch.tensor([eta, lam], dtype=torch.float64)
    gradient = torch.autograd.functional.jacobian(dual, at)
    hessian = torch.autograd.functional.hessian(dual, at)
    point = evaluate_dual(problem, eta=eta, lam=lam)
    assert point.value == pytest.approx(dual(at).item(), rel=1e-12)
    assert [point.g_eta, point.g_lam] == pytest.approx(gradient.tolist(), rel=1e-9, abs=1e-12)
    flat = [point.zz / eta, point.zc / eta, point.zc / eta, point.cc / eta]
    assert flat == pytest.approx(hessian.flatten().tolist(), rel=1e-9, abs=1e-12)


# Optimality


@pytest.mark.parametrize("block", range(7))
def test_every_stressful_batch_is_solved(block):
    seen = set()
    for seed in range(block * 48, block * 48 + 48):
        reward, cost, limits = stressful_batch(seed)
        result = solve_estep(reward, cost, **limits)
        assert_optimal(result, reward, cost, **limits)
        seen.add(result.status)
    assert seen == {"inactive", "active", "relaxed"}


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    actions=st.integers(1, 6),
    states=st.integers(1, 4),
    kl_limit=st.floats(1e-3, 5.0),
    cost_limit=st.floats(-3.0, 3.0),
)
def test_any_small_batch_is_solved(data, actions, states, kl_limit, cost_limit):
    # Integers, halves and thirds: full of ties and of costs proportional to rewards.
    values = st.sampled_from([-2.0, -1.0, -1 / 3, 0.0, 0.5, 1.0, 3.0])
    rows = st.lists(values, min_size=actions * states, max_size=actions * states)
    reward = torch.tensor(data.draw(rows), dtype=torch.float64).view(actions, states)
    cost = torch.tensor(data.draw(rows), dtype=torch.float64).view(actions, states)
    result = solve_estep(reward, cost, cost_limit=cost_limit, kl_limit=kl_limit)
    assert_optimal(result, reward, cost, kl_limit=kl_limit)
    assert (result.status == "relaxed") == (result.cost_limit != cost_limit)


@pytest.mark.parametrize(
    ("share", "status"), [(1.5, "inactive"), (0.0, "active"), (-0.4, "active"), (-9.0, "relaxed")]
)
@pytest.mark.parametrize("seed", range(3))
def test_newton_agrees_with_the_oracle(seed, share, status):
    reward, cost = gaussian_batch(seed)
    limits = {"cost_limit": 3.0 + share, "kl_limit": 0.2}
    newton = solve_estep(reward, cost, **limits)
    oracle = solve_estep_cvxpy(reward, cost, **limits)
    assert newton.status == oracle.status == status
    assert mean_under(newton.weights, reward) == pytest.approx(
        mean_under(oracle.weights, reward), abs=2e-6
    )
    assert newton.cost_limit == pytest.approx(oracle.cost_limit, abs=2e-6)
    assert newton.eta == pytest.approx(oracle.eta, rel=1e-3)
    assert newton.lam == pytest.approx(oracle.lam, rel=1e-3, abs=1e-4)
    torch.testing.assert_close(newton.weights, oracle.weights, atol=1e-4, rtol=0)
    assert mean_under(oracle.weights, cost) <= oracle.cost_limit + 2e-6
    assert mean_kl(oracle.weights) <= 0.2 + 2e-6


def test_newton_agrees_with_the_oracle_on_base_weights_with_zeros():
    reward, cost = gaussian_batch(4)
    base = torch.rand(reward.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    base *= base > 0.4
    reward = torch.where(base > 0, reward, 1e6)  # would win if it had any weight
    limits = {"cost_limit": 2.9, "kl_limit": 0.2, "base_weights": base}
    newton = solve_estep(reward, cost, **limits)
    oracle = solve_estep_cvxpy(reward, cost, **limits)
    assert newton.status == oracle.status == "active"
    assert bool((newton.weights[base == 0] == 0).all())
    torch.testing.assert_close(newton.weights, oracle.weights, atol=1e-4, rtol=0)


def test_trajectory_level_problem_agrees_with_the_oracle():
    # Whole episodes as the actions of a single state: costs are counts, most of them zero.
    generator = torch.Generator().manual_seed(5)
    returns = 300 * torch.rand(200, 1, generator=generator)
    costs = (returns - 150 + 50 * torch.randn(200, 1, generator=generator)).clamp(min=0).round()
    limits = {"cost_limit": 10.0, "kl_limit": 1.5}
    newton = solve_estep(returns, costs, **limits)
    oracle = solve_estep_cvxpy(returns, costs, **limits)
    assert newton.status == oracle.status == "active"
    assert mean_under(newton.weights, costs) == pytest.approx(10.0, abs=1e-3)
    torch.testing.assert_close(newton.weights, oracle.weights, atol=1e-4, rtol=0)


# Infeasible budgets


def test_an_impossible_budget_is_relaxed_and_the_kl_limit_kept():
    reward, cost = gaussian_batch()
    result = solve_estep(reward, cost, cost_limit=-100.0, kl_limit=0.3)
    least = solve_estep(-cost, torch.zeros_like(cost), cost_limit=0.0, kl_limit=0.3)
    free = solve_estep(reward, torch.zeros_like(cost), cost_limit=0.0, kl_limit=0.3)
    least_cost, free_cost = (mean_under(r.weights, cost) for r in (least, free))
    assert result.status == "relaxed"
    assert result.cost_limit == pytest.approx(0.95 * least_cost + 0.05 * free_cost, abs=1e-6)
    assert mean_under(result.weights, cost) == pytest.approx(result.cost_limit, abs=1e-6)
    assert mean_kl(result.weights) == pytest.approx(0.3, rel=1e-6)


def test_a_cost_that_no_action_can_lower_is_relaxed_to_itself():
    reward, _ = gaussian_batch()
    result = solve_estep(reward, torch.full_like(reward, 4.0), cost_limit=1.0, kl_limit=0.3)
    assert (result.status, result.lam) == ("relaxed", 0.0)
    assert result.cost_limit == pytest.approx(4.0, abs=1e-6)
    assert result.kkt_residual <= 1e-6


# Symmetries


@pytest.mark.parametrize("cost_limit", [2.9, 4.0, -5.0])
def test_constants_of_a_state_and_positive_scales_leave_the_weights(cost_limit):
    reward, cost = gaussian_batch()
    generator = torch.Generator().manual_seed(2)
    shift_r, shift_c = 10 * torch.randn(2, reward.shape[1], generator=generator).double()
    plain = solve_estep(reward, cost, cost_limit=cost_limit, kl_limit=0.2)
    moved = solve_estep(
        50 * (reward + shift_r),
        0.1 * (cost + shift_c),
        cost_limit=0.1 * (cost_limit + shift_c.mean().item()),
        kl_limit=0.2,
    )
    assert moved.status == plain.status
    assert moved.eta == pytest.approx(50 * plain.eta, rel=1e-6)
    assert moved.lam == pytest.approx(500 * plain.lam, rel=1e-6)
    torch.testing.assert_close(moved.weights, plain.weights, atol=1e-7, rtol=0)


def test_price_of_cost_falls_as_the_budget_grows():
    reward, cost = gaussian_batch(states=32)
    limits = torch.linspace(2.2, 3.6, 25).tolist()
    results = [solve_estep(reward, cost, cost_limit=limit, kl_limit=0.2) for limit in limits]
    prices = [result.lam for result in results]
    values = [mean_under(result.weights, reward) for result in results]
    assert prices[0] > prices[-1] == 0.0
    assert all(a >= b - 1e-6 for a, b in itertools.pairwise(prices))
    assert all(a <= b + 1e-6 for a, b in itertools.pairwise(values))


def test_single_state_equals_that_state_repeated():
    reward, cost = gaussian_batch(states=1)
    one = solve_estep(reward, cost, cost_limit=2.8, kl_limit=0.2)
    many = solve_estep(reward.repeat(1, 7), cost.repeat(1, 7), cost_limit=2.8, kl_limit=0.2)
    assert many.lam == pytest.approx(one.lam, rel=1e-6)
    torch.testing.assert_close(many.weights, one.weights.repeat(1, 7), atol=1e-8, rtol=0)


def test_single_precision_values_are_solved_in_double_and_returned_in_single():
    reward, cost = gaussian_batch(actions=64, states=256)
    reward = reward + 1e4  # offsets that single precision could not carry through a softmax
    single = solve_estep(reward.float(), cost.float(), cost_limit=2.9, kl_limit=0.1)
    double = solve_estep(
        reward.float().double(), cost.float().double(), cost_limit=2.9, kl_limit=0.1
    )
    assert single.weights.dtype == torch.float32
    assert single.kkt_residual <= 1e-6
    torch.testing.assert_close(single.weights.double(), double.weights, atol=1e-7, rtol=1e-6)


# Warm start


@pytest.mark.parametrize("cost_limit", [2.9, 4.0, -5.0])
def test_warm_start_changes_no_result(cost_limit):
    reward, cost = gaussian_batch(actions=64, states=64)
    cold = solve_estep(reward, cost, cost_limit=cost_limit, kl_limit=0.1)
    for start in (
        cold,
        Multipliers(1.1 * cold.eta, 0.9 * cold.lam),
        Multipliers(1e9, 0.0),
        Multipliers(1e-9, 1e9),
    ):
        warm = solve_estep(reward, cost, cost_limit=cost_limit, kl_limit=0.1, warm_start=start)
        assert warm.status == cold.status
        assert warm.eta == pytest.approx(cold.eta, rel=1e-5)
        torch.testing.assert_close(warm.weights, cold.weights, atol=1e-6, rtol=0)
    again = solve_estep(reward, cost, cost_limit=cost_limit, kl_limit=0.1, warm_start=cold)
    assert again.iterations <= cold.iterations


# Degenerate batches


def test_equal_values_leave_the_base_weights():
    same = torch.full((4, 3), 0.1, dtype=torch.float64)
    base = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64).T.repeat(1, 3)
    result = solve_estep(same, same, cost_limit=0.2, kl_limit=0.5, base_weights=base)
    torch.testing.assert_close(result.weights, base / 10)
    assert result.kkt_residual <= 1e-6


def test_costs_of_zero_do_not_bind():
    reward, _ = gaussian_batch()
    result = solve_estep(reward, torch.zeros_like(reward), cost_limit=0.0, kl_limit=0.2)
    assert (result.status, result.lam) == ("inactive", 0.0)
    assert mean_kl(result.weights) == pytest.approx(0.2, rel=1e-6)


def test_tied_maxima_inside_the_kl_ball_share_all_weight():
    reward = torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=torch.float64).T
    result = solve_estep(reward, torch.zeros_like(reward), cost_limit=0.0, kl_limit=1.0)
    assert result.weights.flatten().tolist() == pytest.approx([0.5, 0.5, 0, 0])
    assert result.eta < 1e-6
    assert result.kkt_residual <= 1e-6


def test_least_cost_is_reached_inside_the_kl_ball():
    # Half of the actions are free of cost, so cost 0 needs a KL of log 2 only.
    reward, _ = gaussian_batch(actions=32)
    cost = (torch.arange(32) % 2).double()[:, None].expand(32, 8)
    limits = {"cost_limit": 0.0, "kl_limit": 1.0}
    result = solve_estep(reward, cost, **limits)
    assert result.status == "relaxed"
    assert 0 < result.cost_limit < 0.05
    assert result.kkt_residual <= 1e-6


def test_equal_rewards_keep_the_budget_closest_to_the_base_weights():
    cost = torch.tensor([[0.0, 1.0]], dtype=torch.float64).T
    result = solve_estep(torch.zeros_like(cost), cost, cost_limit=0.25, kl_limit=0.5)
    assert result.status == "active"
    assert result.weights.flatten().tolist() == pytest.approx([0.75, 0.25], abs=1e-6)


@pytest.mark.parametrize("kl_limit", [math.log(16), 5.0, 1e4])
def test_a_kl_limit_that_cannot_bind_leaves_a_linear_program(kl_limit):
    reward, cost = gaussian_batch()
    free = solve_estep(reward, cost, cost_limit=100.0, kl_limit=kl_limit)
    torch.testing.assert_close(free.weights.argmax(0), reward.argmax(0))
    assert mean_under(free.weights, reward) == pytest.approx(reward.amax(0).mean().item(), abs=1e-5)
    bound = solve_estep(reward, cost, cost_limit=2.5, kl_limit=kl_limit)
    assert bound.status == "active"
    assert mean_under(bound.weights, cost) == pytest.approx(2.5, abs=1e-6)
    # The solution of a linear program with one constraint across states mixes in one state.
    assert int((bound.weights.amax(0) < 1 - 1e-3).sum()) <= 1
    assert max(free.kkt_residual, bound.kkt_residual) <= 1e-6


# Bad input


@pytest.mark.parametrize("solve", ESTEP_SOLVERS.values(), ids=ESTEP_SOLVERS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named(solve, bad):
    reward, cost = gaussian_batch()
    cost[3, 5] = bad
    with pytest.raises(ValueError, match=rf"q_cost is {bad} at \(action, state\) \(3, 5\)"):
        solve(reward, cost, cost_limit=1.0, kl_limit=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q_reward": torch.zeros(16)}, "q_reward must have shape"),
        ({"q_reward": torch.zeros(16, 0)}, "q_reward must have shape"),
        ({"q_cost": torch.zeros(8, 16)}, "q_cost must be floating point of q_reward's shape"),
        ({"q_cost": torch.zeros(16, 8, dtype=torch.int64)}, "not torch.int64"),
        ({"base_weights": torch.zeros(16, 8)}, "base_weights leaves no action in state 0"),
        ({"base_weights": torch.full((16, 8), -1.0)}, r"base_weights is negative at .* \(0, 0\)"),
        ({"kl_limit": 0.0}, "kl_limit must be positive"),
        ({"kl_limit": float("nan")}, "kl_limit must be positive"),
        ({"cost_limit": float("nan")}, "cost_limit must be finite"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {
        "q_reward": torch.zeros(16, 8),
        "q_cost": torch.zeros(16, 8),
        "cost_limit": 1.0,
        "kl_limit": 0.1,
    } | change
    with pytest.raises(ValueError, match=message):
        solve_estep(**arguments)
