"""The convex dual of the E-step: two variables, whatever the number of states and actions.

For K states with N actions each, values R, costs C and base weights w, the E-step solves

    max_q  mean_k sum_i q_ik R_ik
    s.t.   mean_k sum_i q_ik C_ik  <= budget          multiplier lam >= 0                 (1)
           mean_k KL(q_k || w_k)   <= kl_limit        multiplier eta >= 0
           q_k in the simplex

Its solution is q_ik = w_ik exp(z_ik) / Z_k with z = (R - lam C) / eta, and the multipliers
minimise

    g(eta, lam) = eta kl_limit + lam budget + eta mean_k log sum_i w_ik exp(z_ik)         (2)

    dg/deta = kl_limit - mean_k KL(q_k || w_k)
    dg/dlam = budget   - mean_k E_qk[C]                                                   (3)
    Hessian = mean_k Cov_qk[(z, C)] / eta
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

ETA_FLOOR = 1e-7
"""The temperature taken for zero, in standard deviations of R.

With ties the optimum can lie inside the KL ball; then eta is 0 and (1) a linear program. At the
floor q solves it to the tolerance, and z still carries nine digits.
"""

TOLERANCE = 2e-7
"""Complementarity residual at which Newton stops; results promise 1e-6."""

MAX_STEPS = 200


@dataclass(frozen=True, kw_only=True)
class EStepProblem:
    """Problem (1), its values and costs centred in each state and scaled to spread 1 overall.

    Attributes:
        reward: R, shape (actions N, states K), float64; of mean 0 under w in each state.
        cost: C, likewise.
        base_weights: w, shape (N, K), float64; columns sum to 1.
        kl_limit: Bound on the mean KL.
        budget: Bound on the mean cost.
    """

    reward: Tensor
    cost: Tensor
    base_weights: Tensor
    kl_limit: float
    budget: float


class Multipliers(NamedTuple):
    """One point of the dual."""

    eta: float
    lam: float


class Optimum(NamedTuple):
    """Solution of an `EStepProblem`: multipliers, q of shape (N, K), and the solver's steps."""

    eta: float
    lam: float
    weights: Tensor
    steps: int


class DualPoint(NamedTuple):
    """The dual (2) at one pair of multipliers, and what its derivatives (3) are made of."""

    eta: float
    lam: float
    value: float
    g_eta: float
    g_lam: float
    """The gradient: what q leaves unused of the KL limit and of the budget."""
    zz: float
    zc: float
    cc: float
    """Entries of mean_k Cov_qk[(z, C)]."""


def _tilt(problem: EStepProblem, eta: float, lam: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute z less its maximum in each state, that maximum, Z without it, and q."""
    z = torch.sub(problem.reward, problem.cost, alpha=lam).div_(eta)
    top = z.amax(0)
    z -= top
    q = z.exp().mul_(problem.base_weights)
    normaliser = q.sum(0)
    q /= normaliser
    return z, top, normaliser, q


def evaluate_dual(problem: EStepProblem, *, eta: float, lam: float) -> DualPoint:
    """Value, gradient and Hessian of the dual in one pass over the (N, K) numbers."""
    z, top, normaliser, q = _tilt(problem, eta, lam)
    log_normaliser = normaliser.log()
    qz, qc = q * z, q * problem.cost
    mean_z, mean_c = qz.sum(0), qc.sum(0)
    per_state = torch.stack(
        [
            top + log_normaliser,
            mean_z - log_normaliser,
            mean_c,
            qz.mul_(z).sum(0) - mean_z.square(),
            z.mul_(qc).sum(0) - mean_z * mean_c,
            qc.mul_(problem.cost).sum(0) - mean_c.square(),
        ]
    )
    log_z, kl, cost, zz, zc, cc = per_state.mean(1).tolist()
    return DualPoint(
        eta=eta,
        lam=lam,
        value=eta * (problem.kl_limit + log_z) + lam * problem.budget,
        g_eta=problem.kl_limit - kl,
        g_lam=problem.budget - cost,
        zz=zz,
        zc=zc,
        cc=cc,
    )


def complementarity(
    problem: EStepProblem, *, eta: float, lam: float, kl_slack: float, cost_slack: float
) -> float:
    """Residual of 0 <= multiplier, 0 <= slack, multiplier * slack = 0 for both constraints.

    KL counts relative to its limit; cost in standard deviations, or at its price `lam` where that
    is above 1, so that a small residual means a small duality gap.
    """
    kl_residual = min(eta, kl_slack / problem.kl_limit)
    cost_residual = min(lam, cost_slack) * max(1.0, lam)
    return max(abs(kl_residual), abs(cost_residual))


def minimise_dual(problem: EStepProblem, *, eta: float, lam: float) -> Optimum:
    """Newton on the dual from (eta, lam), with steps kept in a box and a line search."""
    point = evaluate_dual(problem, eta=max(eta, ETA_FLOOR), lam=lam)
    steps = 0
    while steps < MAX_STEPS:
        eta, lam, value, g_eta, g_lam = point[:5]
        residual = complementarity(problem, eta=eta, lam=lam, kl_slack=g_eta, cost_slack=g_lam)
        if residual <= TOLERANCE:
            break
        d_eta, d_lam = _newton_direction(point)
        slope = g_eta * d_eta + g_lam * d_lam
        length = 1.0
        while length > 1e-9:
            trial = evaluate_dual(problem, eta=eta + length * d_eta, lam=lam + length * d_lam)
            trial_slope = trial.g_eta * d_eta + trial.g_lam * d_lam
            change = trial.value - value
            # Near the minimum rounding hides the decrease of g, while its slope still tells.
            hidden = abs(change) <= 1e-13 * (1 + abs(value))
            if change <= 1e-4 * length * slope or (hidden and trial_slope <= -0.5 * slope):
                break
            # g is convex along the direction: aim for the zero of its slope.
            secant = slope / (slope - trial_slope) if trial_slope > slope else 0.5
            length *= min(max(secant, 0.1), 0.5)
        else:
            break  # no digit left to gain
        point = trial
        steps += 1
    weights = _tilt(problem, point.eta, point.lam)[3]
    return Optimum(point.eta, point.lam, weights, steps)


def _newton_direction(point: DualPoint) -> tuple[float, float]:
    """Minimise the quadratic model of the dual over a box about `point`.

    The box keeps eta above its floor and within a factor of ten, lam from falling below 0 and from
    outgrowing its scale. Where an edge stops one multiplier, the other is minimised along that
    edge, so that a bound on one does not spoil the step of both.
    """
    g_eta, g_lam = point.g_eta, point.g_lam
    # The positive part of the gradient adds the curvature that g has in log eta; without it, a
    # temperature far too high would be sent below zero.
    ee = (point.zz + max(g_eta, 0.0)) / point.eta
    el, ll = point.zc / point.eta, point.cc / point.eta
    ridge = 1e-12 * (ee + ll) + 1e-300  # R and C may be proportional, C may be zero
    ee, ll = ee + ridge, ll + ridge
    eta_low, eta_high = max(ETA_FLOOR, 0.1 * point.eta) - point.eta, 9 * point.eta
    lam_low, lam_high = -point.lam, 4 * (1 + point.lam)

    determinant = ee * ll - el * el
    if determinant > 0:
        d_eta = (el * g_lam - ll * g_eta) / determinant
        d_lam = (el * g_eta - ee * g_lam) / determinant
        if eta_low <= d_eta <= eta_high and lam_low <= d_lam <= lam_high:
            return d_eta, d_lam

    def model(step: tuple[float, float]) -> float:
        a, b = step
        return g_eta * a + g_lam * b + 0.5 * (ee * a * a + ll * b * b) + el * a * b

    edges = [(a, min(max(-(g_lam + el * a) / ll, lam_low), lam_high)) for a in (eta_low, eta_high)]
    edges += [(min(max(-(g_eta + el * b) / ee, eta_low), eta_high), b) for b in (lam_low, lam_high)]
    return min(edges, key=model)
