"""The M-step of MPO and CVPO on a Gaussian policy: mean and deviation each in a trust region.

Source: Abdolmaleki et al., "Maximum a Posteriori Policy Optimisation", ICLR 2018 (parametric form),
taken over by Liu et al., "Constrained Variational Policy Optimization for Safe Reinforcement
Learning", ICML 2022. With the policy (mu_o, s_o) before the M-step, weights q of candidate actions
and the new policy (mu, s), all diagonal, the mean is judged under the old deviation and the
deviation about the old mean,

    L      = mean_k sum_i q_ik [ -log N(a_ik; mu, s_o) - log N(a_ik; mu_o, s) ]                (1)
    C_mean = mean_k KL(N(mu_o, s_o) || N(mu, s_o)) <= mean limit          multiplier alpha
    C_dev  = mean_k KL(N(mu_o, s_o) || N(mu_o, s)) <= deviation limit     multiplier beta

so that (1) asks q for two moments only, m = E_q[a] and v = E_q[(a - mu_o)^2]. Were mu and s free at
every state, the Lagrangian L + alpha C_mean + beta C_dev would have its minimum at

    mu = mu_o + (m - mu_o) / (1 + alpha),      s^2 = s_o^2 + (v - s_o^2) / (1 + beta):         (2)

a multiplier is how much of the way to q is left for later. `solved_multipliers` finds the ones that
just keep the limits, and a network fitted under them has nowhere further to go. What shared weights
and momentum carry further all the same, `hold` takes back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from safer_offline.policies.gaussian import gaussian_kl, gaussian_nll

BISECTIONS = 40
"""Halvings of the share of the way; single precision has 24 digits."""

SHORTENINGS = 20
"""How often a step is shortened before it is given up."""


class Pair(NamedTuple):
    """One thing of C_mean and the same of C_dev: a value, a limit, a multiplier."""

    mean: Tensor
    deviation: Tensor


@dataclass(frozen=True, kw_only=True)
class Moments:
    """What (1) asks of the old policy and of q, each of shape (B, da).

    Attributes:
        old_mean: mu_o.
        old_std: s_o.
        mean: m.
        square: v.
    """

    old_mean: Tensor
    old_std: Tensor
    mean: Tensor
    square: Tensor

    @classmethod
    def of(cls, candidates: Tensor, weights: Tensor, old: tuple[Tensor, Tensor]) -> Moments:
        """Moments of weighted candidates.

        Args:
            candidates: Actions, shape (N, B, da).
            weights: q, shape (N, B); columns sum to 1.
            old: Mean and deviation before the M-step, each (B, da).
        """
        old_mean, old_std = old
        q = weights[..., None]
        return cls(
            old_mean=old_mean,
            old_std=old_std,
            mean=(q * candidates).sum(0),
            square=(q * (candidates - old_mean) ** 2).sum(0),
        )

    def nll(self, mean: Tensor, std: Tensor) -> Tensor:
        """The sum over i in (1), shape (B,), for a new policy (B, da)."""
        spread = self.square - (self.mean - self.old_mean) ** 2
        of_mean = gaussian_nll(self.mean, mean, self.old_std) + _half_squares(
            spread.clamp_min(0).sqrt(), self.old_std
        )
        return of_mean + gaussian_nll(self.square.sqrt(), torch.zeros_like(std), std)

    def divergences(self, mean: Tensor, std: Tensor) -> Pair:
        """The divergences whose means are C_mean and C_dev, each (B,)."""
        return decoupled_kl(self.old_mean, self.old_std, mean, std)


def _half_squares(difference: Tensor, std: Tensor) -> Tensor:
    return 0.5 * ((difference / std) ** 2).sum(-1)


def decoupled_kl(old_mean: Tensor, old_std: Tensor, mean: Tensor, std: Tensor) -> Pair:
    """KL of N(old_mean, old_std^2) from N(mean, old_std^2) and from N(old_mean, std^2), each (B,).

    Each argument has shape (B, da).
    """
    return Pair(
        _half_squares(mean - old_mean, old_std), gaussian_kl(old_mean, old_std, old_mean, std)
    )


def solved_multipliers(moments: Moments, limits: Pair) -> Pair:
    """The least alpha and beta under which (2) keeps the limits.

    C_mean falls with the square of the share 1 / (1 + alpha). C_dev grows with the other share, for
    which it is bisected.

    Args:
        moments: Of q and the old policy.
        limits: Of C_mean and C_dev, each ().
    """
    all_the_way = _half_squares(moments.mean - moments.old_mean, moments.old_std).mean()
    alpha = (all_the_way / limits.mean).sqrt().clamp_min(1) - 1
    growth = moments.square / moments.old_std**2 - 1
    zero, one = torch.zeros_like(growth), torch.ones_like(growth)

    def divergence(share: Tensor) -> Tensor:
        return gaussian_kl(zero, one, zero, (1 + share * growth).sqrt()).mean()

    low, high = torch.zeros_like(alpha), torch.ones_like(alpha)
    kept = divergence(high) <= limits.deviation
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        within = divergence(middle) <= limits.deviation
        low, high = torch.where(within, middle, low), torch.where(within, high, middle)
    return Pair(alpha, torch.where(kept, 0.0, 1 / low.clamp_min(2**-BISECTIONS) - 1))


def ascend(
    multipliers: Tensor,
    found: Pair,
    limits: Pair,
    *,
    steps: Sequence[float],
    caps: Sequence[float],
) -> Tensor:
    """The multipliers of CVPO's code: they follow how far a limit is exceeded, up to a cap.

    Args:
        multipliers: As they are, shape (2,), like `steps` and `caps`.
        found: C_mean and C_dev, each ().
        limits: Their limits.
        steps: How far the multipliers are moved by an excess of 1.
        caps: What they do not exceed.
    """
    excess = torch.stack(found) - torch.stack(limits)
    moved = multipliers + multipliers.new_tensor(steps) * excess
    return torch.minimum(moved.clamp_min(0), multipliers.new_tensor(caps))


def hold(
    parameters: Sequence[Tensor],
    start: Sequence[Tensor],
    divergences: Callable[[], Pair],
    limits: Pair,
) -> Pair:
    """Go back towards where the M-step began, until both limits are kept.

    The line search of trust-region methods: a divergence falls with about the square of the step.
    A step of which nothing can be kept is undone.

    Args:
        parameters: Of the policy; they are changed.
        start: The same before the M-step.
        divergences: C_mean and C_dev of the parameters as they are, each ().
        limits: Their limits.

    Returns:
        C_mean and C_dev of what is left of the step.
    """
    with torch.no_grad():
        for _ in range(SHORTENINGS):
            found = divergences()
            excess = float((torch.stack(found) / torch.stack(limits)).max())
            if excess <= 1:
                return found
            share = max(0.95 * excess**-0.5, 0.1) if excess < float("inf") else 0.1
            torch._foreach_lerp_(list(parameters), list(start), 1 - share)
        torch._foreach_copy_(list(parameters), list(start))
        return divergences()
