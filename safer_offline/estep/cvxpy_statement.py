"""The E-step as stated, handed to CVXPY: the independent check of the dual's Newton solver."""

from __future__ import annotations

from typing import Any

import cvxpy
import torch

from safer_offline.errors import SaferOfflineError
from safer_offline.estep.dual import ETA_FLOOR, EStepProblem, Multipliers, Optimum

_cvxpy: Any = cvxpy  # its functions are invisible to type checkers


def state_primal(problem: EStepProblem) -> tuple[Any, Any]:
    """Problem (1) of `estep_dual` as a `cvxpy.Problem`, and its variable q of shape (N, K).

    The first two constraints are the KL limit and the budget.
    """
    reward, cost, base = (
        tensor.cpu().numpy() for tensor in (problem.reward, problem.cost, problem.base_weights)
    )
    states = reward.shape[1]
    q = _cvxpy.Variable(reward.shape)
    support = base > 0
    constraints = [
        _cvxpy.sum(_cvxpy.rel_entr(q[support], base[support])) / states <= problem.kl_limit,
        _cvxpy.sum(_cvxpy.multiply(cost, q)) / states <= problem.budget,
        _cvxpy.sum(q, axis=0) == 1,
    ]
    if not support.all():
        constraints.append(q[~support] == 0)
    value = _cvxpy.sum(_cvxpy.multiply(reward, q)) / states
    return _cvxpy.Problem(_cvxpy.Maximize(value), constraints), q


def optimise(problem: EStepProblem, start: Multipliers | None = None) -> Optimum:
    """Solve the primal by Clarabel and read the multipliers off the constraints.

    An interior-point method has no use for `start`.

    Raises:
        SaferOfflineError: If Clarabel ends without a solution.
    """
    del start
    primal, q = state_primal(problem)
    try:
        # Clarabel's longer default steps stall on every third problem of 256 states.
        primal.solve(solver=_cvxpy.CLARABEL, max_step_fraction=0.9)
    except _cvxpy.SolverError as error:
        raise SaferOfflineError(f"Clarabel could not solve the E-step: {error}") from error
    if q.value is None:
        raise SaferOfflineError(f"Clarabel could not solve the E-step: {primal.status}")
    kl_limit, budget = primal.constraints[:2]
    weights = torch.as_tensor(q.value).to(problem.reward.device).clamp_(min=0)
    weights *= problem.base_weights > 0
    return Optimum(
        eta=max(float(kl_limit.dual_value), ETA_FLOOR),
        lam=max(float(budget.dual_value), 0.0),
        weights=weights / weights.sum(0),
        steps=primal.solver_stats.num_iters,
    )
