"""The constrained E-step: how much each sampled action should weigh, within a budget of cost.

Given action values Qr and costs Qc of N actions in each of K states, find the weights q of largest
mean value whose mean cost keeps the budget and which stay close to the base weights w in KL: one
convex problem, written out in `estep_dual`. It serves actions in states and, with K = 1, whole
episodes in a data set.

A budget that no q within the KL limit can keep is not answered with a huge multiplier. It is
relaxed to the least cost in reach plus 5 % of the way to the cost of the unconstrained optimum,
and the result says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from safer_offline.estep.dual import (
    TOLERANCE,
    EStepProblem,
    Multipliers,
    Optimum,
    complementarity,
    evaluate_dual,
    minimise_dual,
)

__all__ = [
    "ESTEP_SOLVERS",
    "EStepResult",
    "EStepSolver",
    "Multipliers",
    "solve_estep",
    "solve_estep_cvxpy",
]

RELAXATION = 0.05
"""Share of the way from the least cost to the unconstrained optimum's that relaxing allows."""

LEAST_ROOM = 1e-5
"""Least such way, in standard deviations of Qc: with less, multipliers measure only rounding."""


@dataclass(frozen=True, kw_only=True)
class EStepResult:
    """Solution of the E-step and the proof of its quality.

    Attributes:
        eta: Temperature, the multiplier of the KL limit, in units of Qr. Next to zero (1e-7
            standard deviations) if the optimum leaves the KL limit slack.
        lam: Price of cost, the multiplier of the budget, in units of Qr over Qc.
        weights: q, shape (actions N, states K), dtype of q_reward; columns sum to 1.
        status: `inactive`: the budget does not bind; `active`: it does; `relaxed`: it was out of
            reach within the KL limit, or all but, and `cost_limit` was raised.
        cost_limit: The budget in force, after any relaxation, in units of Qc.
        kkt_residual: Violation of the optimality conditions, in standard deviations of the Q's
            and relative to kl_limit.
        duality_gap: Dual less primal objective, absolute, in standard deviations of Qr.
        iterations: Steps of the solver, over all the problems that it had to solve.
    """

    eta: float
    lam: float
    weights: Tensor
    status: Literal["inactive", "active", "relaxed"]
    cost_limit: float
    kkt_residual: float
    duality_gap: float
    iterations: int


class EStepSolver(Protocol):
    """Signature that all solvers of the E-step share."""

    def __call__(
        self,
        q_reward: Tensor,
        q_cost: Tensor,
        *,
        cost_limit: float,
        kl_limit: float,
        base_weights: Tensor | None = None,
        warm_start: EStepResult | Multipliers | None = None,
    ) -> EStepResult:
        """Solve the E-step; see `solve_estep`."""
        ...


def solve_estep(
    q_reward: Tensor,
    q_cost: Tensor,
    *,
    cost_limit: float,
    kl_limit: float,
    base_weights: Tensor | None = None,
    warm_start: EStepResult | Multipliers | None = None,
) -> EStepResult:
    """Solve the constrained E-step by Newton on its two-variable dual.

    Args:
        q_reward: Value of each action, shape (actions N, states K).
        q_cost: Cost of each action, shape (N, K).
        cost_limit: Bound on the mean over states of the expected cost, in units of q_cost.
        kl_limit: Bound on the mean over states of KL(q || w).
        base_weights: w, shape (N, K), non-negative, normalised here in each state. None is
            uniform: right for actions drawn from the distribution that anchors the KL.
        warm_start: Solution of a similar problem. It can save steps; it changes no result.

    Returns:
        The solution, with a KKT residual of at most 1e-6.

    Raises:
        ValueError: If shapes differ, a value is not finite, a limit is impossible or a state has
            no action of positive base weight.
    """
    return _solve(
        q_reward,
        q_cost,
        cost_limit=cost_limit,
        kl_limit=kl_limit,
        base_weights=base_weights,
        warm_start=warm_start,
        optimise=_newton,
    )


def solve_estep_cvxpy(
    q_reward: Tensor,
    q_cost: Tensor,
    *,
    cost_limit: float,
    kl_limit: float,
    base_weights: Tensor | None = None,
    warm_start: EStepResult | Multipliers | None = None,
) -> EStepResult:
    """Solve the constrained E-step as stated, by CVXPY with Clarabel: slow and independent.

    Arguments and result are those of `solve_estep`; an interior-point method has no use for
    `warm_start`.

    Raises:
        ValueError: As `solve_estep`.
        SaferOfflineError: If Clarabel ends without a solution.
    """
    from safer_offline.estep.cvxpy_statement import optimise  # noqa: PLC0415 - cvxpy takes a second to load

    return _solve(
        q_reward,
        q_cost,
        cost_limit=cost_limit,
        kl_limit=kl_limit,
        base_weights=base_weights,
        warm_start=warm_start,
        optimise=optimise,
    )


ESTEP_SOLVERS: dict[str, EStepSolver] = {"newton": solve_estep, "cvxpy": solve_estep_cvxpy}


def _solve(
    q_reward: Tensor,
    q_cost: Tensor,
    *,
    cost_limit: float,
    kl_limit: float,
    base_weights: Tensor | None,
    warm_start: EStepResult | Multipliers | None,
    optimise: Callable[[EStepProblem, Multipliers | None], Optimum],
) -> EStepResult:
    """Find out whether the budget binds and is in reach, then solve for it."""
    if not 0 < kl_limit < float("inf"):
        raise ValueError(f"kl_limit must be positive and finite, not {kl_limit}")
    if not abs(cost_limit) < float("inf"):
        raise ValueError(f"cost_limit must be finite, not {cost_limit}")
    weights = _checked_weights(q_reward, q_cost, base_weights)
    reward, _, reward_scale = _standardise(q_reward, weights)
    cost, cost_mean, cost_scale = _standardise(q_cost, weights)
    # No q is further from w than the one that picks the rarest action of each state.
    furthest = -float(weights.masked_fill(weights == 0, 1.0).amin(0).log().mean())
    problem = EStepProblem(
        reward=reward,
        cost=cost,
        base_weights=weights,
        kl_limit=min(kl_limit, furthest + 1.0),
        budget=(cost_limit - cost_mean) / cost_scale,
    )
    unlimited = replace(problem, budget=float(cost.max()) + 1.0)

    optimum = optimise(unlimited, None)
    optimum = optimum._replace(lam=0.0)
    steps = optimum.steps
    status: Literal["inactive", "active", "relaxed"] = "inactive"
    free_cost = _mean_cost(problem, optimum)
    if free_cost > problem.budget + TOLERANCE:
        least = optimise(replace(unlimited, reward=-cost), None)
        steps += least.steps
        least_cost = _mean_cost(problem, least)
        # Strictly above the least cost the problem has an interior, and multipliers stay finite.
        floor = least_cost + max(RELAXATION * (free_cost - least_cost), LEAST_ROOM)
        status = "active"
        if problem.budget < floor:
            problem, status = replace(problem, budget=floor), "relaxed"
            cost_limit = floor * cost_scale + cost_mean
    if free_cost > problem.budget + TOLERANCE:
        start = Multipliers(optimum.eta, 0.0)
        if warm_start is not None:
            start = Multipliers(
                warm_start.eta / reward_scale, warm_start.lam * cost_scale / reward_scale
            )
        optimum = optimise(problem, start)
        steps += optimum.steps

    residual, gap = _certify(problem, optimum)
    return EStepResult(
        eta=optimum.eta * reward_scale,
        lam=optimum.lam * reward_scale / cost_scale,
        weights=optimum.weights.to(q_reward.dtype),
        status=status,
        cost_limit=cost_limit,
        kkt_residual=residual,
        duality_gap=gap,
        iterations=steps,
    )


def _newton(problem: EStepProblem, start: Multipliers | None) -> Optimum:
    """Solve the dual from a cold start or near `start`."""
    # Exact for Gaussian values without a budget: KL = Var[R] / (2 eta^2).
    gaussian = (2 * problem.kl_limit) ** -0.5
    if start is None:
        return minimise_dual(problem, eta=gaussian, lam=0.0)
    # From too cold or too dear a start the weights, all on single actions, show no way out.
    eta, lam = min(max(start.eta, 0.01 * gaussian), 100 * gaussian), min(start.lam, 50.0)
    if lam == 0:
        covariance = (problem.base_weights * problem.reward * problem.cost).sum(0).mean()
        lam = min(max(float(covariance) - eta * problem.budget, 0.01), 20.0)
    return minimise_dual(problem, eta=eta, lam=lam)


def _mean_cost(problem: EStepProblem, optimum: Optimum) -> float:
    return float((optimum.weights * problem.cost).sum(0).mean())


def _certify(problem: EStepProblem, optimum: Optimum) -> tuple[float, float]:
    """KKT residual and duality gap, measured on the weights and free of the solver's own account.

    The residual is the larger of the complementarity residual, which includes feasibility, and of
    what the weights fall short of the best Lagrangian at the multipliers.
    """
    eta, lam, q, _ = optimum
    reward = float((q * problem.reward).sum(0).mean())
    cost_slack = problem.budget - _mean_cost(problem, optimum)
    ratio = torch.where(q > 0, q / problem.base_weights, 1.0)
    kl_slack = problem.kl_limit - float((q * ratio.log()).sum(0).mean())
    gap = evaluate_dual(problem, eta=eta, lam=lam).value - reward
    shortfall = gap - eta * kl_slack - lam * cost_slack
    slackness = complementarity(problem, eta=eta, lam=lam, kl_slack=kl_slack, cost_slack=cost_slack)
    return max(slackness, abs(shortfall)), abs(gap)


def _standardise(values: Tensor, weights: Tensor) -> tuple[Tensor, float, float]:
    """Centre each state of `values` (N, K) and scale all by one number: scaled, mean, scale.

    Neither changes q: a constant of a state cancels in its softmax, a scale in the multipliers.
    """
    values = values.detach().double()
    # Less the value of one of its own actions first, so that equal values become exactly 0.
    # Actions without weight take on that reference and so are never the largest of their state.
    reference = values.gather(0, weights.argmax(0, keepdim=True))
    values = torch.where(weights > 0, values, reference)
    centred = values - reference
    mean = (weights * centred).sum(0)
    centred -= mean
    spread = float((weights * centred.square()).sum(0).mean().sqrt())
    # A spread of rounding errors must not be blown up to 1.
    scale = max(spread, 1e-8 * float(values.abs().max())) or 1.0
    return centred / scale, float((mean + reference).mean()), scale


def _checked_weights(q_reward: Tensor, q_cost: Tensor, base_weights: Tensor | None) -> Tensor:
    """Check all tensors; return the base weights, float64, normalised in each state."""
    if q_reward.ndim != 2 or q_reward.numel() == 0:
        shape = tuple(q_reward.shape)
        raise ValueError(f"q_reward must have shape (actions N, states K), not {shape}")
    if base_weights is None:
        base_weights = torch.ones_like(q_reward)
    named = {"q_reward": q_reward, "q_cost": q_cost, "base_weights": base_weights}
    for name, tensor in named.items():
        if tensor.shape != q_reward.shape or not tensor.is_floating_point():
            raise ValueError(
                f"{name} must be floating point of q_reward's shape {tuple(q_reward.shape)}, "
                f"not {tensor.dtype} of shape {tuple(tensor.shape)}"
            )
        if not bool(tensor.isfinite().all()):
            first = tuple(tensor.isfinite().logical_not().nonzero()[0].tolist())
            raise ValueError(f"{name} is {tensor[first].item()} at (action, state) {first}")
    if bool((base_weights < 0).any()):
        first = tuple((base_weights < 0).nonzero()[0].tolist())
        raise ValueError(f"base_weights is negative at (action, state) {first}")
    weights = base_weights.detach().double()
    totals = weights.sum(0)
    if bool((totals == 0).any()):
        raise ValueError(f"base_weights leaves no action in state {int(totals.argmin())}")
    return weights / totals
